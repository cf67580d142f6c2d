"""A full or broken disk, a short write, or a kill at the n-th call that changes a file.

Nothing that was acknowledged is lost, and nothing is stored in part.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.index.zoo_oracle import PYTHONPATH

HERE = Path(__file__).parent
KINDS = ["full", "broken", "short", "kill-before", "kill-after"]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled faults.c."""
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"], check=True)  # noqa: S607
    return library


def check_faults(library: Path, folder: Path, kind: str, most: int) -> None:
    """Run zoo_faults.py with at most so many faults."""
    environment = os.environ | {
        "PYTHONPATH": PYTHONPATH,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LD_PRELOAD": str(library),
    }
    command = [sys.executable, "-B", str(HERE / "zoo_faults.py"), str(folder), kind, str(most), "1"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert run.returncode == 0, run.stderr[-8000:]
    calls, tried, succeeded, refused, killed = map(int, run.stdout.split())
    assert calls > 100 and tried == min(most, calls)
    assert killed == tried if kind.startswith("kill") else succeeded + refused == tried


@pytest.mark.parametrize("kind", KINDS)
def test_some_faults(library: Path, tmp_path: Path, kind: str) -> None:
    """At random calls, at least one in each step."""
    check_faults(library, tmp_path / "faults", kind, 14)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault(library: Path, tmp_path: Path, kind: str) -> None:
    """At every call."""
    check_faults(library, tmp_path / "faults", kind, 10**9)
