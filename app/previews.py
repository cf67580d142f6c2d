"""Previews: made from the pictures beside LoRA files, and stored in a zoo."""

import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from threading import get_ident
from typing import Final

from PIL import Image

from loradex.index import Model
from loradex.index.base import PREVIEWS
from loradex.retrieval.lora.regular_file import is_regular_file

PREVIEW_SIZE: Final = 256  # the longer side at most, in pixels
PICTURE_SUFFIXES: Final = (
    ".preview.png",
    ".png",
    ".preview.jpg",
    ".jpg",
    ".jpeg",
    ".webp",
)  # as users of ComfyUI and A1111 name the pictures beside their LoRAs, in order of preference
IMAGE_FORMATS: Final = ("PNG", "JPEG", "WEBP")


def preview_beside(path: Path) -> bytes | None:
    """Return a preview, as PNG, of the picture beside a LoRA file; None if there is no readable picture."""
    picture = picture_beside(path)
    if picture is None:
        return None
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def is_preview(png: bytes) -> bool:
    """Return whether these bytes are a valid PNG of preview size."""
    try:
        with Image.open(BytesIO(png), formats=("PNG",)) as image:
            small = max(image.size) <= PREVIEW_SIZE
            if small:
                image.load()
            return small
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def store_preview(png: bytes | None, id: str, zoo: Path) -> str | None:
    """Store the preview of a model in a zoo; None keeps the one that the zoo has, if any.

    Returns:
        Path of the preview, relative to the zoo's folder; None if the model has none.
    """
    target = zoo / PREVIEWS / f"{id}.png"
    if png is not None:
        target.parent.mkdir(exist_ok=True)
        write_atomically(target, lambda part: part.write_bytes(png))
    return f"{PREVIEWS}/{target.name}" if png is not None or target.is_file() else None


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


def picture_beside(path: Path) -> Image.Image | None:
    """Return the picture beside a LoRA file, scaled down to preview size; None if there is no readable picture."""
    for picture in pictures_beside(path):
        try:
            with Image.open(picture, formats=IMAGE_FORMATS) as image:
                image.thumbnail((PREVIEW_SIZE, PREVIEW_SIZE))
                return image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            continue
    return None


def pictures_beside(path: Path) -> Iterator[Path]:
    """Iterate over the existing files beside a LoRA file that are named like its picture, most likely first."""
    return (
        picture
        for picture in (path.with_name(path.stem + suffix) for suffix in PICTURE_SUFFIXES)
        if is_regular_file(picture)
    )
