"""The weights files below folders: one walk for all that reads folders (index, watch, inspect, look-alikes, training).

A link to a folder is followed, and each folder is read once, by its real path: links make no loops, and no file is
found twice. Its own name below the first folder that was asked for is preferred to one through a link to a folder, and
that to a link to the file itself. Nothing stops a walk: what cannot be read is named in ``refused``.
"""

import logging
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

LOG = logging.getLogger(__name__)
WEIGHTS_SUFFIX: Final = ".safetensors"
EXTENSION: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,11}$")  # of a file; a folder may be called v1.5


@dataclass(slots=True)
class WeightsFolder:
    """What a walk through folders found; hidden files and folders are left out.

    Attributes:
        files: absolute paths of the weights files, a folder's own before those of the folders in it, each sorted by
            name; bytes of names that are no UTF-8 are lone surrogates, as everywhere in Python.
        refused: the reason for each folder and link that cannot be read, by path.
    """

    files: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    _read: set[str] = field(default_factory=set)  # real paths of folders
    _folder_links: list[str] = field(default_factory=list)
    _file_links: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, folders: Iterable[Path]) -> "WeightsFolder":
        """Walk through folders."""
        walk = cls()
        roots = [str(folder.absolute()) for folder in folders]
        above = {parent for root in roots for parent in parents(os.path.realpath(root))}
        for root in roots:
            walk.read_tree(root, os.path.realpath(root))
        while walk._folder_links:
            links, walk._folder_links = walk._folder_links, []
            for link in links:
                target = os.path.realpath(link)
                if target in above and target not in walk._read:
                    walk.refuse(link, "it leads to a folder around this one, which is not read")
                else:
                    walk.read_tree(link, target)
        walk.add_linked_files()
        return walk

    def read_tree(self, top: str, real_top: str) -> None:
        """Read a folder and all below it, depth first, but for links to folders, which are kept for later.

        Args:
            top: the folder as it was reached.
            real_top: its real path.
        """
        pending = [(top, real_top)]
        while pending:
            folder, real = pending.pop()
            if real in self._read:
                continue
            self._read.add(real)
            below = []
            for entry in self.entries(folder):
                if entry.is_symlink() or is_junction(entry):
                    self.keep_link(entry.path)
                elif self.is_folder(entry):
                    below.append((entry.path, os.path.join(real, entry.name)))  # noqa: PTH118
                elif is_weights_name(entry.name):
                    self.files.append(entry.path)
            pending += reversed(below)

    def entries(self, folder: str) -> list["os.DirEntry[str]"]:
        """The entries of a folder that are not hidden, by name; those before an error, if there is one."""
        found: list[os.DirEntry[str]] = []
        try:
            with os.scandir(folder) as entries:
                found.extend(entry for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            self.refuse(folder, str(error.strerror))
        return sorted(found, key=lambda entry: entry.name)

    def is_folder(self, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry that is no link is a folder; False if that cannot be told."""
        try:
            return entry.is_dir(follow_symlinks=False)
        except OSError as error:
            if not is_weights_name(entry.name):
                self.refuse(entry.path, str(error.strerror))
            return False

    def keep_link(self, link: str) -> None:
        """Keep a link for later; one that leads nowhere is refused if it may have led to a folder."""
        try:
            is_folder = stat.S_ISDIR(os.stat(link).st_mode)  # noqa: PTH116
        except OSError as error:
            if is_weights_name(link):
                self._file_links.append(link)
            elif not EXTENSION.search(link):
                self.refuse(link, str(error.strerror))
            return
        if is_folder:
            self._folder_links.append(link)
        elif is_weights_name(link):
            self._file_links.append(link)

    def add_linked_files(self) -> None:
        """Add links to files that were not found otherwise; a link that leads nowhere is added, too."""
        real_files: set[str] = set()
        for link in self._file_links:
            real = os.path.realpath(link)
            is_found = os.path.dirname(real) in self._read and is_found_name(os.path.basename(real))  # noqa: PTH119, PTH120
            if real not in real_files and not is_found:
                real_files.add(real)
                self.files.append(link)

    def refuse(self, path: str, reason: str) -> None:
        """Store why a folder or a link cannot be read."""
        self.refused[path] = f"{path}: cannot be read: {reason}; check the link or the access rights"


def parents(folder: str) -> list[str]:
    """The folders around a folder."""
    return [str(parent) for parent in Path(folder).parents]


def is_weights_name(name: str) -> bool:
    """Whether a file of this name should hold weights, whatever the case of its ending."""
    return name.lower().endswith(WEIGHTS_SUFFIX)


def is_found_name(name: str) -> bool:
    """Whether a file of this name is found in a folder that is read."""
    return is_weights_name(name) and not name.startswith(".")


def is_junction(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a link between folders as Windows makes it."""
    test = getattr(entry, "is_junction", None)  # from Python 3.12
    return bool(test and test())


def find_weights(folder: Path) -> list[Path]:
    """The weights files below a folder, sorted; what cannot be read there is logged."""
    found = WeightsFolder.of([folder])
    for reason in found.refused.values():
        LOG.warning("%s", reason)
    absolute = folder.absolute()
    return sorted(folder / Path(path).relative_to(absolute) for path in found.files)
