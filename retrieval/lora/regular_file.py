"""Regular files, opened safely: nothing that could block, has no end, or lies behind an impossible name."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from loradex.retrieval.errors import FileMissing


def is_regular_file(path: Path) -> bool:
    """Whether there is such a file; False also for names that are too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def open_regular_file(path: Path) -> Iterator[FileIO]:
    """Open a regular file for unbuffered reading.

    Raises:
        FileMissing: it does not exist, is not a regular file, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileMissing(f"{path}: cannot be read: {reason}; check the path") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileMissing(f"{path}: expected a regular file, found a folder or a device; name a .safetensors file")
    with FileIO(descriptor) as file:
        try:
            yield file
        except OSError as error:
            raise FileMissing(
                f"{path}: cannot be read: {error.strerror}; check the disk, or copy the file again"
            ) from None
