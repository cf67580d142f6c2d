"""What ``import loradex`` gives, and that an installed wheel adds no other name to Python's path."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

import loradex

TREE = Path(__file__).parents[1]
NAMES = [
    "ApiError",
    "CheckpointError",
    "Client",
    "DescriptionError",
    "EngineError",
    "FetchError",
    "FileError",
    "Filter",
    "Loradex",
    "LoradexError",
    "NoExpert",
    "QueryError",
    "Zoo",
    "ZooError",
    "open_zoo",
]
PACKAGES = ("app", "index", "retrieval")  # folders of the tree that are links below src/loradex
NEEDED = (*PACKAGES, "src", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
LARGE = {"models", "trees", "classifiers", "baselines", "measured"}  # of the miniature; not needed for a search
SCRIPT = """
import sys
from pathlib import Path

import app, index, retrieval
from loradex import Client, Loradex, open_zoo

import loradex

here = Path(__file__).parent
assert [Path(module.__file__).relative_to(here).as_posix() for module in (app, index, retrieval)] == [
    "app.py",
    "index/__init__.py",
    "retrieval.py",
]
Client("http://127.0.0.1:1").close()
engine = Loradex()
hits = engine.search("a slice of pizza", 3).hits
with open_zoo(engine.zoo_folder, read_only=True) as zoo:
    assert len(hits) == 3 and all(zoo.get(hit.model.id) == hit.model for hit in hits), hits
files = [Path(module.__file__) for name, module in sys.modules.items() if name.split(".")[0] == "loradex"]
assert len(files) > 20 and all(file.is_relative_to(sys.argv[1]) for file in files), files
print("searched")
"""


def test_public_names() -> None:
    assert loradex.__all__ == NAMES
    assert dir(loradex) == NAMES
    for name in NAMES:
        assert getattr(loradex, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'torch'"):
        loradex.torch  # type: ignore[attr-defined]  # noqa: B018


def test_import_is_light() -> None:
    code = "import sys, loradex; print(*{'torch', 'numpy', 'faiss', 'httpx', 'pydantic'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A wheel of the tree, built offline from a copy without the large folders of the miniature."""
    copy = tmp_path_factory.mktemp("tree")
    for name in NEEDED:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, copy / name, symlinks=True, ignore=excluded, copy_function=link_or_copy)
        else:
            link_or_copy(TREE / name, copy / name)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", copy / "dist", copy)
    (path,) = (copy / "dist").glob("*.whl")
    yield path
    shutil.rmtree(copy)


def excluded(folder: str, names: list[str]) -> set[str]:
    """Names that a copy leaves out."""
    large = LARGE if Path(folder).name == "miniature" else set()
    return {"__pycache__", *large} & set(names)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Make a hard link where the file system can: it is fast, and the build only reads."""
    with suppress(OSError):
        os.link(source, target)
        return
    shutil.copy2(source, target)


def pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"PIP_NO_INDEX": "1"}
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.xdist_group("wheel")
def test_wheel_contents(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        files = set(archive.namelist())
    assert {"loradex/py.typed", "loradex/app/web/page.css", "loradex/index/__init__.py"} <= files
    assert {"loradex/retrieval/space/everyday_words.txt", "loradex/retrieval/words/english_words.txt.gz"} <= files
    shipped = [path for path in (TREE / "app/miniature/zoo").rglob("*") if path.is_file()]
    assert {f"loradex/{path.relative_to(TREE).as_posix()}" for path in shipped} <= files
    folders = {file.split("/")[0] for file in files}
    assert folders == {"loradex", f"loradex-{version('loradex')}.dist-info"}


@pytest.mark.xdist_group("wheel")
def test_installed_wheel_beside_modules_of_the_same_names(wheel: Path, tmp_path: Path) -> None:
    """A user's own app.py, index/ and retrieval.py keep working, and so does Loradex."""
    site, work = tmp_path / "site", tmp_path / "work"
    pip("install", "--no-deps", "--no-index", "--no-compile", "--target", site, wheel)
    assert not {path.stem for path in site.iterdir()} & set(PACKAGES)
    (work / "index").mkdir(parents=True)
    for file in ("app.py", "index/__init__.py", "retrieval.py"):
        (work / file).write_text("MINE = True\n")
    (work / "main.py").write_text(SCRIPT)
    result = subprocess.run(
        [sys.executable, "main.py", str(site)],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "searched\n"), result.stderr
