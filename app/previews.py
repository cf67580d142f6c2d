"""The pictures that lie beside LoRAs."""

import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from threading import get_ident
from typing import Final

from PIL import Image

from loradex.index import Model
from loradex.index.sqlite.zoo import PREVIEWS
from loradex.retrieval.lora.facts import is_there

PREVIEW: Final = 256  # pixels a side at the most
PICTURES: Final = (
    ".preview.png",
    ".png",
    ".preview.jpg",
    ".jpg",
    ".jpeg",
    ".webp",
)  # as ComfyUI's and A1111's users name them
FORMATS: Final = ("PNG", "JPEG", "WEBP")


def preview_beside(path: Path) -> bytes | None:
    """A small PNG of the picture that lies beside a file, if one does and can be read."""
    picture = picture_beside(path)
    if picture is None:
        return None
    written = BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def is_preview(png: bytes) -> bool:
    """Whether these bytes are a small PNG."""
    try:
        with Image.open(BytesIO(png), formats=("PNG",)) as image:
            small = max(image.size) <= PREVIEW
            if small:
                image.load()
            return small
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def keep_preview(png: bytes | None, id: str, zoo: Path) -> str | None:
    """Put a small PNG into the zoo and return its path there; where there is none, that of the drawing that the zoo has already, if any."""
    target = zoo / PREVIEWS / f"{id}.png"
    if png is not None:
        target.parent.mkdir(exist_ok=True)
        write_whole(target, lambda part: part.write_bytes(png))
    return f"{PREVIEWS}/{target.name}" if png is not None or target.is_file() else None


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
    write_whole(target, lambda part: picture.save(part, "PNG"))


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Have a file written, whole or not at all, while others may write the same."""
    part = target.with_name(f".{target.name}.{os.getpid()}.{get_ident()}.part")
    try:
        write(part)
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
