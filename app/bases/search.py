"""Finds base models in the folders where other programs keep them; nothing is downloaded."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loradex.app.bases.changes import absolute, open_known
from loradex.app.reporting import ProgressCallback
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import FileError, FileMissing

USUAL_FOLDERS: Final = (  # the last two names of a folder, in lower case
    ("models", "checkpoints"),  # ComfyUI, Fooocus
    ("models", "diffusers"),  # ComfyUI, SD.Next
    ("models", "stable-diffusion"),  # A1111, Forge, SD.Next
    ("models", "stablediffusion"),  # StabilityMatrix
)
DATA_FOLDERS: Final = (Path("~/.local/share/StabilityMatrix"),)  # hidden ones, which are looked for by name
INDEX: Final = "model_index.json"
ENDINGS: Final = (".safetensors", ".ckpt")  # pickles are named, so that nobody wonders
SKIPPED_NAMES: Final = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
MAX_DEPTH: Final = 8  # levels of folders that are searched for usual ones
MAX_DEPTH_INSIDE: Final = 4  # of a base model below a usual folder
MAX_FOLDERS: Final = 50_000  # that are looked into, in all
MAX_CANDIDATES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Candidates:
    """Paths that may be base models; ``complete`` is False if a bound ended the search."""

    paths: tuple[Path, ...]
    complete: bool


@dataclass(slots=True)
class Found:
    """What a search found.

    Attributes:
        bases: base models, those that draw last.
        skipped: reasons for files and folders that are no base models, by path.
        copies: paths of copies, by path the base model that is taken instead.
        complete: False if a bound ended the search.
    """

    bases: list[BaseModel] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)
    complete: bool = True


class Walk:
    """Looks into folders, into each once, links included, up to a bound on their number."""

    def __init__(self) -> None:
        """Begin with no folder seen."""
        self.seen: set[str] = set()
        self.complete = True

    def entries(self, folder: str) -> list[os.DirEntry[str]]:
        """The entries of a folder by name; none if it was looked into before or cannot be read."""
        place = os.path.realpath(folder)
        if place in self.seen:
            return []
        if len(self.seen) >= MAX_FOLDERS:
            self.complete = False
            return []
        self.seen.add(place)
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError:
            return []

    def usual_folders(self, folder: str) -> Iterator[str]:
        """Yield the usual folders of base models at and below a folder, the nearest first; they are not looked into."""
        level = [folder]
        for _ in range(MAX_DEPTH):
            below: list[str] = []
            for path in level:
                if is_usual(path):
                    yield path
                else:
                    below += [entry.path for entry in self.entries(path) if is_folder(entry)]
            level = below

    def candidates(self, folder: str, depth: int = MAX_DEPTH_INSIDE) -> Iterator[Path]:
        """Yield the folders of diffusers and the checkpoints at and below a folder."""
        entries = self.entries(folder)
        if any(entry.name == INDEX for entry in entries):
            yield Path(folder)
            return
        for entry in entries:
            if entry.name.lower().endswith(ENDINGS) and not entry.name.startswith("."):
                yield Path(entry.path)
            elif depth > 0 and is_folder(entry):
                yield from self.candidates(entry.path, depth - 1)


def find_candidates(places: Iterable[Path] = ()) -> Candidates:
    """Find what may be base models in the usual folders below the home and the working folder, and in the hub's cache.

    Args:
        places: further folders; one without a usual folder below it is searched itself.

    Raises:
        FileMissing: a place does not exist.
    """
    outside, inside, paths = Walk(), Walk(), dict[Path, None]()
    for path in list_candidates(outside, inside, places):
        if len(paths) >= MAX_CANDIDATES:
            return Candidates(tuple(paths), complete=False)
        paths[path] = None
    return Candidates(tuple(paths), outside.complete and inside.complete)


def read_candidates(candidates: Candidates, progress: ProgressCallback = lambda done, total, path: None) -> Found:
    """Tell the base models among candidates; of copies only the first is taken.

    Args:
        candidates: as ``find_candidates`` finds them.
        progress: called with the number of candidates that were read.
    """
    found = Found(complete=candidates.complete)
    firsts: dict[str, str] = {}  # by place and by fingerprint
    for done, path in enumerate(candidates.paths):
        progress(done, len(candidates.paths), str(path))
        place = os.path.realpath(path)
        try:
            base = None if place in firsts else open_known(path)
        except (FileError, OSError) as error:
            found.skipped[str(path)] = str(error)
            continue
        first = firsts.get(place) or firsts.setdefault(base.fingerprint if base else "", str(path))
        firsts[place] = first
        if base is None or first != str(path):
            found.copies[str(path)] = first
        else:
            found.bases.append(base)
    found.bases.sort(key=lambda base: base.kind == "folder")  # the last of a family is its default
    return found


def list_candidates(outside: Walk, inside: Walk, places: Iterable[Path]) -> Iterator[Path]:
    """Yield the paths that may be base models, those of the named places first.

    Args:
        outside: looks for usual folders.
        inside: looks into them, so that a large disk outside does not use up its bound.
        places: further folders.
    """
    for place in map(absolute, places):
        if not place.is_dir():
            raise FileMissing(f"{place}: expected a folder to look for base models in, found none; check the path")
        usual = list(outside.usual_folders(str(place)))
        for folder in usual:
            yield from inside.candidates(folder)
        if not usual:
            yield from inside.candidates(str(place), MAX_DEPTH)
    for hub in hub_caches():
        for snapshot in sorted(hub.glob("models--*/snapshots/*")):
            yield from inside.candidates(str(snapshot), 0)
    for place in (Path.cwd(), Path.home(), *DATA_FOLDERS):
        for folder in outside.usual_folders(str(place.expanduser())):
            yield from inside.candidates(folder)


def hub_caches() -> list[Path]:
    """The folders in which huggingface_hub keeps what it downloaded; those that are there."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    home = os.environ.get("HF_HOME")
    named = (os.environ.get("HF_HUB_CACHE"), os.environ.get("HUGGINGFACE_HUB_CACHE"))
    folders = [*filter(None, named), *([f"{home}/hub"] if home else []), f"{cache}/huggingface/hub"]
    return [path for path in dict.fromkeys(map(Path, folders)) if path.is_dir()]


def is_usual(folder: str) -> bool:
    """Whether a folder is one where programs keep base models."""
    path = Path(folder)
    return (path.parent.name.lower(), path.name.lower()) in USUAL_FOLDERS


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one, that is looked into."""
    try:
        return not entry.name.startswith(".") and entry.name not in SKIPPED_NAMES and entry.is_dir()
    except OSError:
        return False
