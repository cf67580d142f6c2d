"""Finds the ``.safetensors`` files below folders."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora.regular_file import is_regular_file
from loradex.retrieval.lora.weights_folder import WEIGHTS_SUFFIX, WeightsFolder


@dataclass(slots=True)
class FolderScan:
    """The result of scanning folders; each file costs one ``stat``.

    Attributes:
        files: size in bytes and modification time in nanoseconds, by absolute path.
        refused: the reason for each file or folder that cannot be accessed, by path.
        roots: absolute paths of the scanned folders and files.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, places: Sequence[Path]) -> "FolderScan":
        """Scan files and folders, as ``WeightsFolder`` reads folders: links are followed, each file is found once.

        Raises:
            FileMissing: a place does not exist, or there is no such file below any of them.
        """
        scan = cls()
        folders = []
        for place in places:
            root = place.absolute()
            if is_missing(root):
                raise FileMissing(f"{place}: expected a folder, found nothing there; check the path")
            scan.roots.append(str(root))
            if is_regular_file(root):
                scan.add_file(str(root))
            else:
                folders.append(root)
        found = WeightsFolder.of(folders)
        scan.refused |= found.refused
        for path in found.files:
            scan.add_file(path)
        if not scan.files and not scan.refused:
            where = ", ".join(map(str, places))
            raise FileMissing(
                f"{where}: expected {WEIGHTS_SUFFIX} files somewhere below, found none; name the folder that holds your LoRAs"
            )
        return scan

    def add_file(self, path: str) -> None:
        """Store the size and time of a file, or why it cannot be accessed."""
        try:
            status = os.stat(path)  # noqa: PTH116
            self.files[path] = (status.st_size, status.st_mtime_ns)
        except OSError as error:
            self.refused[path] = f"{path}: cannot be read: {error.strerror}; check the link or the access rights"

    def covers(self, path: str) -> bool:
        """Whether the scan would have found a file at ``path``: below a root, and below no folder that was refused."""
        return any(is_below(path, root) for root in self.roots) and not any(
            is_below(path, refused) for refused in self.refused
        )


def is_below(path: str, folder: str) -> bool:
    """Whether a path is the folder itself or lies in it at any depth."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def is_missing(place: Path) -> bool:
    """Whether there is nothing at a place; False if that cannot be told, which is found when it is read."""
    try:
        place.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return True
    except OSError:
        return False
    return False


def find_files(places: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """The weights files below some places, and the reason for each path there that cannot be read.

    Raises:
        FileMissing: a place does not exist, or there is no such file below any of them.
    """
    scan = FolderScan.of(places)
    return [Path(path) for path in scan.files], scan.refused
