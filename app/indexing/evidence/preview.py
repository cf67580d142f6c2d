"""Evidence by the pictures beside a file, which place a model of any family.

They are read where the file is read, and placed where the zoo is written: a worker on another machine may have no
CLIP, and one that encodes the pictures of many files at a time is faster.
"""

from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Final

import numpy as np
from PIL import Image

from loradex.app.indexing.evidence.positions import calibrated
from loradex.app.pictures import SMALL_SIDE, BadPicture, read_picture
from loradex.index import Position
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import CheckpointError

LOSSLESS_SIDE: Final = 256  # the longest side of a copy without loss; larger ones would need ten times the bytes
JPEG_QUALITY: Final = 90
COPY_FORMATS: Final = ("PNG", "JPEG")
MAX_COPY_BYTES: Final = 2**19
MIN_LENGTH: Final = 1e-3  # of a mean of unit vectors that still has a direction


def small_copies(paths: Sequence[str]) -> tuple[tuple[bytes, ...], dict[str, str]]:
    """Read pictures.

    Returns:
        The different ones among them, small, as PNG or JPEG; and for each that cannot be used the reason, by path.
    """
    copies: dict[bytes, None] = {}
    bad: dict[str, str] = {}
    for path in paths:
        try:
            copies[checked_copy(path)] = None
        except BadPicture as error:
            bad[path] = str(error)
    return tuple(copies), bad


def checked_copy(path: str) -> bytes:
    """The small copy of a picture file.

    Raises:
        BadPicture: the file cannot be used.
    """
    copy = small_copy(read_picture(path))
    if len(copy) > MAX_COPY_BYTES:
        raise BadPicture(
            f"{path}: expected a picture that is small when scaled down, found {len(copy):,} bytes; save it anew"
        )
    return copy


def small_copy(picture: Image.Image) -> bytes:
    """A picture as PNG, or as JPEG if it is large."""
    buffer = BytesIO()
    if max(picture.size) <= LOSSLESS_SIDE:
        picture.save(buffer, "PNG")
    else:
        picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def open_copy(copy: bytes) -> Image.Image:
    """Decode a small copy.

    Raises:
        ValueError: it is none.
    """
    try:
        with Image.open(BytesIO(copy), formats=COPY_FORMATS) as image:
            if max(image.size) > SMALL_SIDE or len(copy) > MAX_COPY_BYTES:
                raise ValueError("a picture that is too large")
            return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"no picture: {error}") from None


class PreviewPlacer:
    """Places models by their pictures, with the image tower of the space's CLIP, which is loaded when first needed.

    Attributes:
        reason: why pictures cannot be placed, once that was found.
    """

    def __init__(self, encoder: Encoder) -> None:
        """Nothing is loaded yet."""
        self.encoder = encoder
        self.reason: str | None = None
        self._loaded = False

    def can_place(self) -> bool:
        """Whether there is an image tower; loads it."""
        if not self._loaded and self.reason is None:
            self.place([[Image.new("RGB", (8, 8))]])
        return self.reason is None

    def place(self, models: Iterable[Sequence[Image.Image]]) -> list[Position | None]:
        """Place some models, each by its pictures; None for one that they do not place."""
        models = list(models)
        pictures = [picture for each in models for picture in each]
        if not pictures or self.reason is not None:
            return [None] * len(models)
        try:
            vectors = self.encoder.encode_pictures(pictures).numpy()
            if vectors.shape[1] != self.encoder.space.dim:
                raise ValueError(f"vectors of {vectors.shape[1]} numbers")
        except (CheckpointError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            found = " ".join(str(error).split())[:300] or type(error).__name__
            self.reason = (
                f"space {self.encoder.space.name}: expected a CLIP that encodes pictures, found none ({found})"
            )
            return [None] * len(models)
        self._loaded = True
        ends = np.cumsum([len(each) for each in models])
        return [self.position(vectors[end - len(each) : end]) for each, end in zip(models, ends.tolist(), strict=True)]

    def position(self, vectors: np.ndarray) -> Position | None:
        """The position of a model with pictures (n, dim): the mean of their unit vectors, at length 1."""
        if not len(vectors):
            return None
        mean = vectors.mean(0)
        length = float(np.linalg.norm(mean))
        if not length > MIN_LENGTH:
            return None
        return calibrated(self.encoder, None, (mean / length).astype(np.float32))
