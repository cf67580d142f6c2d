"""The ``.safetensors`` files below some folders, each looked at once."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileMissing

ENDING: Final = ".safetensors"


@dataclass(slots=True)
class Scan:
    """What lies below some folders.

    Attributes:
        files: size in bytes and time of the last change in nanoseconds, by absolute path.
        refused: what could not be looked at, and why.
        roots: the folders and files that were named, absolute.
    """

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    roots: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, places: Sequence[Path]) -> "Scan":
        """Look below folders, hidden ones left out; links to files are followed, links to folders are not.

        Raises:
            FileMissing: a place is not there, or none of them holds such a file.
        """
        scan = cls()
        for place in places:
            if not place.exists():
                raise FileMissing(f"{place}: expected a folder, found nothing there; check the path")
            scan.roots.append(str(place.absolute()))
            for path in [str(place.absolute())] if place.is_file() else scan.walk(place.absolute()):
                scan.look_at(path)
        if not scan.files and not scan.refused:
            where = ", ".join(map(str, places))
            raise FileMissing(
                f"{where}: expected {ENDING} files somewhere below, found none; name the folder that holds your LoRAs"
            )
        return scan

    def walk(self, folder: Path) -> Iterator[str]:
        """Files below a folder whose name says safetensors, in order."""
        for parent, folders, files in os.walk(folder, onerror=self.refuse):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (
                os.path.join(parent, name)  # noqa: PTH118
                for name in sorted(files)
                if name.lower().endswith(ENDING) and not name.startswith(".")
            )

    def look_at(self, path: str) -> None:
        """The one look at a file."""
        try:
            status = os.stat(path)  # noqa: PTH116
            self.files[path] = (status.st_size, status.st_mtime_ns)
        except OSError as error:
            error.filename = path
            self.refuse(error)

    def refuse(self, error: OSError) -> None:
        """Note what could not be looked at."""
        self.refused[str(error.filename)] = (
            f"{error.filename}: cannot be read: {error.strerror}; check the link or the access rights"
        )

    def covers(self, path: str) -> bool:
        """Whether a path lies below one of the roots, and below nothing that could not be looked at."""
        return any(lies_below(path, root) for root in self.roots) and not any(
            lies_below(path, refused) for refused in self.refused
        )


def lies_below(path: str, folder: str) -> bool:
    """Whether a path is a folder's, or in it at any depth."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_files(places: Sequence[Path]) -> list[Path]:
    """The files below some places.

    Raises:
        FileMissing: a place is not there, or none of them holds such a file.
    """
    scan = Scan.of(places)
    return [Path(path) for path in (*scan.files, *scan.refused)]
