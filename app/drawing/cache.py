"""A cache of drawings: a folder that any number of processes may use, clean or delete."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image

from loradex.app.paths import user_cache_dir
from loradex.app.previews import save_png

MAX_BYTES: Final = 500_000_000
SUFFIXES: Final = (".png", ".part")  # of the files that it may delete; a killed process leaves a .part behind


class DrawingCache:
    """PNG files by key, of a bounded total size; the least recently used are deleted first."""

    def __init__(self, folder: Path | None = None, max_bytes: int = MAX_BYTES) -> None:
        """Use a folder; it is created by the first ``put``."""
        self.folder, self.max_bytes = folder or user_cache_dir() / "drawings", max_bytes

    def path(self, key: str) -> Path:
        """Return the path of a drawing, cached or not."""
        return self.folder / f"{key}.png"

    def get(self, key: str) -> Image.Image | None:
        """Return a drawing; None if it is not cached or cannot be read."""
        try:
            with Image.open(self.path(key), formats=("PNG",)) as file:
                image = file.convert("RGB")
            os.utime(self.path(key))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return None
        return image

    def put(self, key: str, image: Image.Image) -> None:
        """Store a drawing, then delete the least recently used ones while the cache is too large."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_png(image, self.path(key))
        files = []
        for path in self.folder.iterdir():
            if path.suffix in SUFFIXES:
                with suppress(FileNotFoundError):  # another process may delete files as well
                    stat = path.stat()
                    files.append((stat.st_mtime_ns, stat.st_size, path))
        files.sort(reverse=True)
        total = 0
        for _, size, path in files:
            total += size
            if total > self.max_bytes and path != self.path(key):
                path.unlink(missing_ok=True)
