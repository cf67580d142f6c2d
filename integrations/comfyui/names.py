"""Names of LoRAs as ComfyUI's loaders take them, and the models of a zoo that they are.

A server may lie on another machine or in a container, so its paths are compared as texts; nothing that a server sends
is looked up in the file system. ComfyUI's names have sub-folders, with this machine's slashes.
"""

from __future__ import annotations

import os
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence

import folder_paths

FOLDER = "loras"
SLASHES = re.compile(r"[\\/]+")
# What trainers call every file: such a name says nothing without its folder.
COMMON_STEMS = frozenset(
    {"pytorch_lora_weights", "adapter_model", "lora", "model", "last", "final", "weights", "diffusion_pytorch_model"}
)


class LoraNames:
    """The LoRAs in ComfyUI's folders, at one moment.

    Attributes:
        names: as loaders take them.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Look up the files of names."""
        self.names = list(names)
        self.paths: dict[str, str] = {}  # by name
        self._by_path: dict[str, str] = {}
        self._by_basename: defaultdict[str, list[str]] = defaultdict(list)
        self._by_slashes = {"/".join(SLASHES.split(name)): name for name in reversed(self.names)}
        for name in self.names:
            path = folder_paths.get_full_path(FOLDER, name)
            if path is None:
                continue
            self.paths[name] = path = os.path.abspath(path)
            for known in (path, os.path.realpath(path)):
                self._by_path.setdefault(path_key(known), name)
            self._by_basename[parts_of(path)[-1]].append(name)

    def resolve(self, written: str) -> str | None:
        """The name that someone wrote, with slashes of either kind; None if there is no such file."""
        return self._by_slashes.get("/".join(SLASHES.split(written.strip())))

    def of_paths(self, paths: Iterable[str]) -> str | None:
        """The name of the first path that is the path of a LoRA here."""
        return next((name for path in paths if (name := self._by_path.get(path_key(path)))), None)

    def of_tail(self, path: str, size: int | None) -> str | None:
        """The LoRA that a path elsewhere most likely is: the same name, size, and most of the folders above it.

        Args:
            path: of a file as the server knows it.
            size: of that file in bytes; None if it is not known.

        Returns:
            None if there is none, or several are as likely.
        """
        parts = parts_of(path)
        shared = [(common_tail(parts, parts_of(self.paths[name])), name) for name in self._by_basename[parts[-1]]]
        needed = 2 if os.path.splitext(parts[-1])[0] in COMMON_STEMS else 1
        likely = [(count, name) for count, name in shared if count >= needed and self._has_size(name, size)]
        best = max((count for count, _ in likely), default=0)
        fitting = [name for count, name in likely if count == best]
        return fitting[0] if len(fitting) == 1 else None

    def _has_size(self, name: str, size: int | None) -> bool:
        try:
            return size is None or os.path.getsize(self.paths[name]) == size
        except OSError:
            return False


def path_key(path: str) -> str:
    """A path as it is compared: as this system does."""
    return os.path.normcase(os.path.normpath(path))


def parts_of(path: str) -> list[str]:
    """The folders and the name of a path of any system, in lower case."""
    return [part for part in SLASHES.split(path.lower()) if part] or [""]


def common_tail(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common, from the end."""
    shared = 0
    while shared < min(len(one), len(other)) and one[-1 - shared] == other[-1 - shared]:
        shared += 1
    return shared


_lock = threading.Lock()
_last: LoraNames | None = None


def lora_names() -> LoraNames:
    """The LoRAs in ComfyUI's folders now; made again only if files came or went."""
    global _last
    names = folder_paths.get_filename_list(FOLDER)
    with _lock:
        if _last is None or _last.names != names:
            _last = LoraNames(names)
        return _last
