"""A full disk, a failing one, a short write or a kill at the n-th call that changes a file: nothing that was acknowledged is lost, nothing is there in part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
KINDS = ["full", "broken", "short", "kill-before", "kill-after"]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler"
)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled faults.c."""
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", made, HERE / "faults.c", "-ldl"], check=True)  # noqa: S607
    return made


def check_faults(library: Path, folder: Path, kind: str, most: int) -> None:
    """Run zoo_faults.py."""
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parent.parent),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LD_PRELOAD": str(library),
    }
    command = [sys.executable, "-B", str(HERE / "zoo_faults.py"), str(folder), kind, str(most), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr[-8000:]
    calls, tried, through, typed, killed = map(int, done.stdout.split())
    assert calls > 100 and tried == min(most, calls)
    assert killed == tried if kind.startswith("kill") else through + typed == tried


@pytest.mark.parametrize("kind", KINDS)
def test_some_faults(library: Path, tmp_path: Path, kind: str) -> None:
    """At calls drawn by chance, some in each step."""
    check_faults(library, tmp_path / "faults", kind, 14)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_fault(library: Path, tmp_path: Path, kind: str) -> None:
    """At every call."""
    check_faults(library, tmp_path / "faults", kind, 10**9)
