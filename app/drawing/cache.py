"""Drawings that were made before, in a folder that any number of processes may use, clean or delete."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from PIL import Image

from loradex.app.paths import own_cache
from loradex.app.previews import save_png

MOST_BYTES: Final = 500_000_000
OURS: Final = (".png", ".part")  # a part that was left behind by a killed process grows old like a drawing


class Drawings:
    """PNG files by key, bounded in bytes; those that were used last stay."""

    def __init__(self, folder: Path | None = None, most: int = MOST_BYTES) -> None:
        """Name the folder; it is made when it is first written to."""
        self.folder, self.most = folder or own_cache() / "drawings", most

    def path(self, key: str) -> Path:
        """Where a drawing lies, or would."""
        return self.folder / f"{key}.png"

    def find(self, key: str) -> Image.Image | None:
        """A drawing, if it is there and can be read."""
        try:
            with Image.open(self.path(key), formats=("PNG",)) as picture:
                found = picture.convert("RGB")
            os.utime(self.path(key))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            return None
        return found

    def keep(self, key: str, picture: Image.Image) -> None:
        """Store a drawing, then delete those that were used longest ago while there are too many bytes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_png(picture, self.path(key))
        known = []
        for path in self.folder.iterdir():
            if path.suffix in OURS:
                with suppress(FileNotFoundError):  # another process may clean as well
                    about = path.stat()
                    known.append((about.st_mtime_ns, about.st_size, path))
        known.sort(reverse=True)
        kept = 0
        for _, size, path in known:
            kept += size
            if kept > self.most and path != self.path(key):
                path.unlink(missing_ok=True)
