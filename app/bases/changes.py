"""Adds base models to the list of named ones, and removes them."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from loradex.app.bases.entry import Entry
from loradex.app.bases.registry import change_registry
from loradex.app.reporting import ProgressCallback
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import FileError, FileUnsupported
from loradex.retrieval.lora.family import UNKNOWN


def add_bases(
    paths: Sequence[Path], progress: ProgressCallback = lambda done, total, path: None
) -> tuple[list[Entry], dict[str, str]]:
    """Add base models, each the default of its family from now on; one that was added before is read again.

    Args:
        paths: of folders of diffusers, or of checkpoints in one file.
        progress: called with the number of paths that were read.

    Returns:
        What was added, and the reasons for the paths that were refused.

    Raises:
        RegistryError: the list cannot be read or written.
    """
    added, refused = dict[str, Entry](), dict[str, str]()
    for done, path in enumerate(paths):
        progress(done, len(paths), str(path))
        try:
            entry = Entry.of(open_known(absolute(path)))
            added[entry.path] = entry
        except (FileError, OSError) as error:
            refused[str(path)] = str(error)
    if added:
        change_registry(lambda entries: [*without(entries, added), *added.values()])
    return list(added.values()), refused


def add_found(found: Sequence[BaseModel]) -> list[Entry]:
    """Add base models that were found, except those that are known and unchanged; defaults stay what they are.

    One that has changed, or that was moved, takes its old place in the list.

    Raises:
        RegistryError: the list cannot be read or written.
    """
    new: list[Entry] = []

    def change(entries: list[Entry]) -> list[Entry]:
        new.clear()
        changed, first = list(entries), list[Entry]()
        for entry in map(Entry.of, found):
            same = [i for i, known in enumerate(changed) if known.fingerprint == entry.fingerprint]
            if any(os.path.exists(changed[i].path) for i in same):  # noqa: PTH110 - may be no path at all
                continue
            places = same or [i for i, known in enumerate(changed) if known.path == entry.path]
            new.append(entry)
            if places:
                changed[places[0]] = entry
            else:
                first.append(entry)
        return [*first, *changed]

    if found:
        change_registry(change)
    return new


def remove_bases(names: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Remove base models from the list, by path or all of a family; their files stay.

    Returns:
        What was removed, and the names that fit none.

    Raises:
        RegistryError: the list cannot be read or written.
    """
    removed: list[Entry] = []
    unknown: list[str] = []

    def change(entries: list[Entry]) -> list[Entry]:
        for name in names:
            paths = {name, str(absolute(Path(name)))}
            fitting = [entry for entry in entries if entry.path in paths] or [
                entry for entry in entries if entry.family == name
            ]
            removed.extend(entry for entry in fitting if entry not in removed)
            unknown.extend([] if fitting else [name])
        return [entry for entry in entries if entry not in removed]

    change_registry(change)
    return removed, unknown


def open_known(path: Path) -> BaseModel:
    """Open a base model whose family can be told.

    Raises:
        FileError: it cannot be read, or its family is unknown.
    """
    base = BaseModel.open(path)
    if base.family == UNKNOWN:
        raise FileUnsupported(
            f"{path}: expected a base model of a family that Loradex knows, found another architecture; no LoRA's family would name it"
        )
    return base


def absolute(path: Path) -> Path:
    """An absolute path without ``..``; links stay, as what they point to may be replaced."""
    path = path.expanduser()
    return path.resolve() if ".." in path.parts else path.absolute()


def without(entries: Iterable[Entry], added: dict[str, Entry]) -> list[Entry]:
    """The entries that no added one replaces: of the same path, of the same place by a link, or moved there."""
    places = {os.path.realpath(path) for path in added}
    fingerprints = {entry.fingerprint for entry in added.values()}
    return [
        entry
        for entry in entries
        if os.path.realpath(entry.path) not in places
        and (entry.fingerprint not in fingerprints or os.path.exists(entry.path))  # noqa: PTH110 - may be no path at all
    ]
