"""The pictures that lie beside LoRAs."""

import os
from collections.abc import Iterator
from pathlib import Path
from threading import get_ident
from typing import Final

from PIL import Image

from index import Model
from index.zoo import PREVIEWS
from retrieval.lora.facts import is_there

PREVIEW: Final = 256  # pixels a side at the most
PICTURES: Final = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp")  # as ComfyUI's and A1111's users name them
FORMATS: Final = ("PNG", "JPEG", "WEBP")


def keep_preview(path: Path, id: str, zoo: Path) -> str | None:
    """A small PNG, in the zoo, of the picture that lies beside a file, if one does and can be read; else the drawing that the zoo has already."""
    picture = picture_beside(path)
    if picture is not None:
        return store_preview(picture, id, zoo)
    return f"{PREVIEWS}/{id}.png" if (zoo / PREVIEWS / f"{id}.png").is_file() else None


def store_preview(picture: Image.Image, id: str, zoo: Path) -> str:
    """Put a small PNG into the zoo, in the place of one that is there; its path, relative to the zoo's folder, comes back."""
    target = zoo / PREVIEWS / f"{id}.png"
    target.parent.mkdir(exist_ok=True)
    small = picture.copy()
    small.thumbnail((PREVIEW, PREVIEW))
    save_png(small, target)
    return f"{PREVIEWS}/{target.name}"


def save_png(picture: Image.Image, target: Path) -> None:
    """Write a PNG, whole or not at all, while others may write the same."""
    part = target.with_name(f".{target.name}.{os.getpid()}.{get_ident()}.part")
    try:
        picture.save(part, "PNG")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def drawing_of(model: Model, zoo: Path) -> Path | None:
    """Where a model's drawing lies in a zoo, if it does: a file right in the folder of drawings, whatever the catalogue says."""
    path = zoo / PREVIEWS / Path(model.preview or "").name
    return path if model.preview == f"{PREVIEWS}/{path.name}" and path.is_file() and not path.is_symlink() else None


def picture_beside(path: Path) -> Image.Image | None:
    """The picture that lies beside a file, made small, if one does and can be read."""
    for picture in pictures_beside(path):
        try:
            with Image.open(picture, formats=FORMATS) as image:
                image.thumbnail((PREVIEW, PREVIEW))
                return image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
            continue
    return None


def pictures_beside(path: Path) -> Iterator[Path]:
    """The files beside another that are named as its pictures, the likeliest first."""
    return (picture for picture in (path.with_name(path.stem + ending) for ending in PICTURES) if is_there(picture))
