"""Previews: the small PNGs of models, stored in a zoo."""

import os
from collections.abc import Callable
from pathlib import Path
from threading import get_ident
from typing import Final

from PIL import Image

from loradex.index import Model
from loradex.index.base import PREVIEWS

PREVIEW_SIZE: Final = 256  # the longer side at most, in pixels


def store_preview(image: Image.Image | None, id: str, zoo: Path) -> str | None:
    """Store an image, scaled down, as the preview of a model; None keeps the one that the zoo has, if any.

    Returns:
        Path of the preview, relative to the zoo's folder; None if the model has none.
    """
    if image is not None:
        return replace_preview(image, id, zoo)
    return f"{PREVIEWS}/{id}.png" if (zoo / PREVIEWS / f"{id}.png").is_file() else None


def replace_preview(image: Image.Image, id: str, zoo: Path) -> str:
    """Store an image, scaled down, as the preview of a model; return its path, relative to the zoo's folder."""
    target = zoo / PREVIEWS / f"{id}.png"
    target.parent.mkdir(exist_ok=True)
    small = image.copy()
    small.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
    save_png(small, target)
    return f"{PREVIEWS}/{target.name}"


def save_png(image: Image.Image, target: Path) -> None:
    """Write a PNG atomically."""
    write_atomically(target, lambda part: image.save(part, "PNG"))


def write_atomically(target: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` write a temporary file, then move it to ``target``; others may write the same file meanwhile."""
    part = target.with_name(f".{target.name}.{os.getpid()}.{get_ident()}.part")
    try:
        write(part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def preview_path(model: Model, zoo: Path) -> Path | None:
    """Return the path of a model's preview; None if it has none.

    A path in the catalogue that leads out of the folder of previews is ignored: a zoo may come from a stranger.
    """
    path = zoo / PREVIEWS / Path(model.preview or "").name
    return path if model.preview == f"{PREVIEWS}/{path.name}" and path.is_file() and not path.is_symlink() else None
