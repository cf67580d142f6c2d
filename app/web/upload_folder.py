"""The server's own folder for uploaded files: bounded in bytes and files, and deleted when the server ends."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MAX_STORED_BYTES: Final = 8 * 2**30  # of all files in the folder
MAX_STORED_FILES: Final = 2000  # in the folder
MIN_AGE: Final = 60  # seconds before a file may be deleted to make room for others


class UploadFolder:
    """A temporary folder in which Gradio stores uploads."""

    def __init__(
        self, max_bytes: int = MAX_STORED_BYTES, max_files: int = MAX_STORED_FILES, min_age: float = MIN_AGE
    ) -> None:
        """Create the folder, and make it Gradio's folder for uploads."""
        self.folder = Path(tempfile.mkdtemp(prefix="loradex-"))
        self.max_bytes, self.max_files, self.min_age = max_bytes, max_files, min_age
        self._incoming, self._lock = 0, threading.Lock()
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)

    def make_room(self, size: int) -> bool:
        """Delete the oldest files until ``size`` more bytes fit; False if they do not fit."""
        with self._lock:
            self._remove_empty_folders()
            files = sorted(self._files(), key=lambda file: file[0])
            used, count = sum(file_size for _, file_size, _ in files), len(files)
            for modified, file_size, path in files:
                if used + self._incoming + size <= self.max_bytes and count < self.max_files:
                    return True
                if time.time() - modified < self.min_age:
                    return False
                with suppress(OSError):
                    path.unlink()
                    if path.parent != self.folder:
                        path.parent.rmdir()
                used, count = used - file_size, count - 1
            return used + self._incoming + size <= self.max_bytes

    @contextmanager
    def incoming(self, size: int) -> Iterator[None]:
        """Count ``size`` bytes as used while they are being received."""
        with self._lock:
            self._incoming += size
        try:
            yield
        finally:
            with self._lock:
                self._incoming -= size

    def remove(self) -> None:
        """Delete the folder with all files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_empty_folders(self) -> None:
        """Remove what is left of expired files: Gradio makes a folder for each file, and deletes only the file."""
        for path in self.folder.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= self.min_age:
                    path.rmdir()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Modification time, size in bytes and path of every file."""
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                status = path.lstat()
                if not path.is_dir():
                    yield status.st_mtime, status.st_size, path
