"""What people ask for: texts, pictures, models and LoRA files, each with a weight, as one direction of the space."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from PIL import Image

from loradex.app.previews import FORMATS
from loradex.retrieval.errors import QueryError

MOST_PARTS: Final = 32
LARGEST_WEIGHT: Final = 100.0
MOST_PIXELS: Final = 50_000_000
SIGN: Final = re.compile(r"(?:^|\s)([+-])\s")  # of a text in the search box: hound + hat - red
WEIGHT: Final = re.compile(r"(.*\S)\s*\^\s*(\d{1,6}(?:\.\d{1,6})?)", re.DOTALL)  # as Lucene writes it


class Kind(StrEnum):
    """What a part of a query is."""

    TEXT = "text"
    PICTURE = "picture"
    MODEL = "model"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a query; a weight below zero takes it away."""

    kind: Kind
    value: str
    weight: float = 1.0

    @classmethod
    def read(cls, kind: Kind, written: str, sign: int = 1) -> Self:
        """A part as people write it: ``dog``, or ``dog^0.5`` for half the weight.

        Raises:
            QueryError: the weight is out of bounds.
        """
        found = WEIGHT.fullmatch(written)
        value, weight = (found[1], float(found[2])) if found else (written, 1.0)
        if not 0 < weight <= LARGEST_WEIGHT:
            raise QueryError(
                f"weight of {value[:80]!r}: expected more than 0 and at most {LARGEST_WEIGHT:g}, found {weight:g}; write it as dog^0.5"
            )
        return cls(kind, value, sign * weight)


@dataclass(frozen=True, slots=True)
class Query:
    """Parts that are added up."""

    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls,
        texts: Sequence[str] = (),
        minus: Sequence[str] = (),
        pictures: Sequence[str] = (),
        models: Sequence[str] = (),
        files: Sequence[str] = (),
    ) -> Self:
        """A query of texts, texts that are taken away, picture files, ids of models, and LoRA files; each may end in ``^weight``.

        Raises:
            QueryError: there is nothing to look for, or too much.
        """
        parts = [Part.read(Kind.TEXT, text) for text in texts]
        parts += [Part.read(Kind.PICTURE, picture) for picture in pictures]
        parts += [Part.read(Kind.MODEL, model) for model in models]
        parts += [Part.read(Kind.FILE, file) for file in files]
        if not parts:
            raise QueryError(
                "query: expected a text, a picture or a model, found none; say what the model should draw, such as 'a slice of pizza'"
            )
        parts += [Part.read(Kind.TEXT, text, -1) for text in minus]
        if len(parts) > MOST_PARTS:
            raise QueryError(f"query: expected at most {MOST_PARTS} parts, found {len(parts)}; leave some out")
        return cls(tuple(parts))

    def values(self, kind: Kind, sign: int = 1) -> list[str]:
        """The values of the parts of a kind that are added, or that are taken away."""
        return [part.value for part in self.parts if part.kind is kind and part.weight * sign > 0]

    def __str__(self) -> str:
        """The query in one line."""
        said = ""
        for part in self.parts:
            sign = " - " if part.weight < 0 else " + " if said else ""
            weight = "" if abs(part.weight) == 1 else f"^{abs(part.weight):g}"
            said += f"{sign}{part.value if part.kind is Kind.TEXT else f'{part.kind} {part.value}'}{weight}"
        return said

    def document(self) -> dict[str, Any]:
        """The query in JSON."""
        return {
            "text": str(self),
            "parts": [{"kind": str(part.kind), "value": part.value, "weight": part.weight} for part in self.parts],
        }


def plus_and_minus(box: str) -> tuple[list[str], list[str]]:
    """The texts that a search box adds and takes away: ``hound + hat - red``, as ``str(query)`` writes it."""
    first, *rest = SIGN.split(box)
    signed = [("+", first), *zip(rest[::2], rest[1::2], strict=True)]
    return [text.strip() for sign, text in signed if sign == "+" and text.strip()], [
        text.strip() for sign, text in signed if sign == "-" and text.strip()
    ]


def open_picture(path: str | Path) -> Image.Image:
    """A picture in RGB.

    Raises:
        QueryError: it cannot be read, or is too large.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise QueryError(
                    f"{path}: expected at most {MOST_PIXELS:,} pixels, found {image.width} x {image.height}; make it smaller"
                )
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        kinds = ", ".join(FORMATS)
        raise QueryError(
            f"{path}: expected a picture ({kinds}), found none that can be read: {type(error).__name__}; choose another file"
        ) from None
