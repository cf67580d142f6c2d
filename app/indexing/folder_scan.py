"""Finds the ``.safetensors`` files below folders."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileMissing

WEIGHTS_SUFFIX: Final = ".safetensors"


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
        """Scan files and folders; hidden folders are skipped, links to files are followed, links to folders are not.

        Raises:
            FileMissing: a place does not exist, or there is no such file below any of them.
        """
        scan = cls()
        for place in places:
            if not place.exists():
                raise FileMissing(f"{place}: expected a folder, found nothing there; check the path")
            root = place.absolute()
            scan.roots.append(str(root))
            for path in [str(root)] if place.is_file() else scan.walk(root):
                scan.add_file(path)
        if not scan.files and not scan.refused:
            where = ", ".join(map(str, places))
            raise FileMissing(
                f"{where}: expected {WEIGHTS_SUFFIX} files somewhere below, found none; name the folder that holds your LoRAs"
            )
        return scan

    def walk(self, folder: Path) -> Iterator[str]:
        """Yield the paths of the weights files below a folder, sorted within each folder."""
        for parent, folders, files in os.walk(folder, onerror=self.refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (
                os.path.join(parent, name)  # noqa: PTH118
                for name in sorted(files)
                if name.lower().endswith(WEIGHTS_SUFFIX) and not name.startswith(".")
            )

    def add_file(self, path: str) -> None:
        """Store the size and time of a file, or why it cannot be accessed."""
        try:
            status = os.stat(path)  # noqa: PTH116
            self.files[path] = (status.st_size, status.st_mtime_ns)
        except OSError as error:
            error.filename = path
            self.refuse(error)

    def refuse(self, error: OSError) -> None:
        """Store why a file or folder cannot be accessed."""
        self.refused[str(error.filename)] = (
            f"{error.filename}: cannot be read: {error.strerror}; check the link or the access rights"
        )

    def covers(self, path: str) -> bool:
        """Whether the scan would have found a file at ``path``: below a root, and below no folder that was refused."""
        return any(is_below(path, root) for root in self.roots) and not any(
            is_below(path, refused) for refused in self.refused
        )


def is_below(path: str, folder: str) -> bool:
    """Whether a path is the folder itself or lies in it at any depth."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_files(places: Sequence[Path]) -> list[Path]:
    """The weights files below some places, and the paths there that cannot be accessed.

    Raises:
        FileMissing: a place does not exist, or there is no such file below any of them.
    """
    scan = FolderScan.of(places)
    return [Path(path) for path in (*scan.files, *scan.refused)]
