"""The files that people send: in a folder of the server's own, bounded, and gone when it ends."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 8 * 2**30
MOST_FILES: Final = 2000
YOUNG: Final = 60  # seconds for which a file is not given up for others


class Uploads:
    """A folder that holds files for a while."""

    def __init__(self, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES, young: float = YOUNG) -> None:
        """Make the folder, and have Gradio put its files there."""
        self.folder = Path(tempfile.mkdtemp(prefix="loradex-"))
        self.most_bytes, self.most_files, self.young = most_bytes, most_files, young
        self._arriving, self._lock = 0, threading.Lock()
        os.environ["GRADIO_TEMP_DIR"] = str(self.folder)

    def make_room(self, size: int) -> bool:
        """Whether ``size`` bytes more can be kept, the oldest files being given up for them."""
        with self._lock:
            self._sweep()
            files = sorted(self._files(), key=lambda file: file[0])
            kept, count = sum(size for _, size, _ in files), len(files)
            for changed, bytes, path in files:
                if kept + self._arriving + size <= self.most_bytes and count < self.most_files:
                    return True
                if time.time() - changed < self.young:
                    return False
                with suppress(OSError):
                    path.unlink()
                    if path.parent != self.folder:
                        path.parent.rmdir()
                kept, count = kept - bytes, count - 1
            return kept + self._arriving + size <= self.most_bytes

    @contextmanager
    def coming(self, size: int) -> Iterator[None]:
        """Count bytes that are on their way."""
        with self._lock:
            self._arriving += size
        try:
            yield
        finally:
            with self._lock:
                self._arriving -= size

    def remove(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sweep(self) -> None:
        """Take away the folders of files that Gradio took away; it makes one for each."""
        for path in self.folder.iterdir():
            with suppress(OSError):
                if time.time() - path.stat().st_mtime >= self.young:
                    path.rmdir()

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                status = path.lstat()
                if not path.is_dir():
                    yield status.st_mtime, status.st_size, path
