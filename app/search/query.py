"""Queries: weighted sums of texts, pictures, models of a zoo and LoRA files."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from PIL import Image

from loradex.app.pictures import IMAGE_FORMATS
from loradex.retrieval.errors import QueryError

MAX_QUERY_PARTS: Final = 32
MAX_WEIGHT: Final = 100.0
MAX_PIXELS: Final = 50_000_000
SIGN_PATTERN: Final = re.compile(r"(?:^|\s)([+-])\s")  # in the search box: hound + hat - red
WEIGHT_PATTERN: Final = re.compile(r"(.*\S)\s*\^\s*(\d{1,6}(?:\.\d{1,6})?)", re.DOTALL)  # as in Lucene: dog^0.5


class PartKind(StrEnum):
    """The kinds of parts of a query."""

    TEXT = "text"
    PICTURE = "picture"
    MODEL = "model"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One part of a query; its weight is negative if it is subtracted."""

    kind: PartKind
    value: str
    weight: float = 1.0

    @classmethod
    def parse(cls, kind: PartKind, text: str, sign: int = 1) -> Self:
        """Parse a part such as ``dog``, or ``dog^0.5`` with the weight 0.5; a ``sign`` of -1 subtracts it.

        Raises:
            QueryError: the weight is out of bounds.
        """
        match = WEIGHT_PATTERN.fullmatch(text)
        value, weight = (match[1], float(match[2])) if match else (text, 1.0)
        if not 0 < weight <= MAX_WEIGHT:
            raise QueryError(
                f"weight of {value[:80]!r}: expected more than 0 and at most {MAX_WEIGHT:g}, found {weight:g}; write it as dog^0.5"
            )
        return cls(kind, value, sign * weight)


@dataclass(frozen=True, slots=True)
class Query:
    """The weighted sum of some parts."""

    parts: tuple[QueryPart, ...]

    @classmethod
    def from_parts(
        cls,
        texts: Sequence[str] = (),
        minus: Sequence[str] = (),
        pictures: Sequence[str] = (),
        models: Sequence[str] = (),
        files: Sequence[str] = (),
    ) -> Self:
        """Build a query; each part may end in ``^weight``.

        Args:
            texts: what the models should draw.
            minus: what they should not draw.
            pictures: paths of picture files that they should draw like.
            models: ids of models that they should be like.
            files: paths of LoRA files that they should be like.

        Raises:
            QueryError: there are no parts, or too many.
        """
        parts = [QueryPart.parse(PartKind.TEXT, text) for text in texts]
        parts += [QueryPart.parse(PartKind.PICTURE, picture) for picture in pictures]
        parts += [QueryPart.parse(PartKind.MODEL, model) for model in models]
        parts += [QueryPart.parse(PartKind.FILE, file) for file in files]
        if not parts:
            raise QueryError(
                "query: expected a text, a picture or a model, found none; say what the model should draw, such as 'a slice of pizza'"
            )
        parts += [QueryPart.parse(PartKind.TEXT, text, -1) for text in minus]
        if len(parts) > MAX_QUERY_PARTS:
            raise QueryError(f"query: expected at most {MAX_QUERY_PARTS} parts, found {len(parts)}; leave some out")
        return cls(tuple(parts))

    def values(self, kind: PartKind, sign: int = 1) -> list[str]:
        """The values of the parts of a kind that are added (``sign`` 1) or subtracted (-1)."""
        return [part.value for part in self.parts if part.kind is kind and part.weight * sign > 0]

    def __str__(self) -> str:
        """The query in one line."""
        text = ""
        for part in self.parts:
            sign = " - " if part.weight < 0 else " + " if text else ""
            weight = "" if abs(part.weight) == 1 else f"^{abs(part.weight):g}"
            text += f"{sign}{part.value if part.kind is PartKind.TEXT else f'{part.kind} {part.value}'}{weight}"
        return text

    def document(self) -> dict[str, Any]:
        """The query as JSON."""
        return {
            "text": str(self),
            "parts": [{"kind": str(part.kind), "value": part.value, "weight": part.weight} for part in self.parts],
        }


def parse_search_box(box: str) -> tuple[list[str], list[str]]:
    """Return the added and the subtracted texts of a search box: ``hound + hat - red``, the form of ``str(query)``."""
    first, *rest = SIGN_PATTERN.split(box)
    signed = [("+", first), *zip(rest[::2], rest[1::2], strict=True)]
    return [text.strip() for sign, text in signed if sign == "+" and text.strip()], [
        text.strip() for sign, text in signed if sign == "-" and text.strip()
    ]


def open_picture(path: str | Path) -> Image.Image:
    """Read a picture as RGB.

    Raises:
        QueryError: it cannot be read or is too large.
    """
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise QueryError(
                    f"{path}: expected at most {MAX_PIXELS:,} pixels, found {image.width} x {image.height}; make it smaller"
                )
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        kinds = ", ".join(IMAGE_FORMATS)
        raise QueryError(
            f"{path}: expected a picture ({kinds}), found none that can be read: {type(error).__name__}; choose another file"
        ) from None
