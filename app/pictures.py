"""The pictures that lie beside LoRAs."""

from pathlib import Path
from typing import Final

from PIL import Image

from index.zoo import PREVIEWS

PREVIEW: Final = 256  # pixels a side at the most
PICTURES: Final = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp")  # as ComfyUI's and A1111's users name them
FORMATS: Final = ("PNG", "JPEG", "WEBP")


def keep_preview(path: Path, id: str, zoo: Path) -> str | None:
    """A small PNG, in the zoo, of the picture that lies beside a file, if one does and can be read."""
    picture = picture_beside(path)
    if picture is None:
        return None
    target = zoo / PREVIEWS / f"{id}.png"
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    picture.save(part, "PNG")
    part.replace(target)
    return f"{PREVIEWS}/{target.name}"


def picture_beside(path: Path) -> Image.Image | None:
    """The picture that lies beside a file, made small, if one does and can be read."""
    for ending in PICTURES:
        picture = path.with_name(path.stem + ending)
        if picture.is_file():
            try:
                with Image.open(picture, formats=FORMATS) as image:
                    image.thumbnail((PREVIEW, PREVIEW))
                    return image.convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
                continue
    return None
