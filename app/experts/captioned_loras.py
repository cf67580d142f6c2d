"""LoRAs whose captions are known, listed in a file ``captions.json`` of their folder."""

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora.regular_file import open_regular_file

CAPTIONS_FILE: Final = "captions.json"
MAX_BYTES: Final = 16 * 2**20
MAX_LORAS: Final = 20_000
MAX_TEXTS: Final = 1000  # captions of one LoRA, and words in them
MAX_LENGTH: Final = 1000  # characters of one


class CaptionKind(StrEnum):
    """What the captions of a LoRA hold besides the words of their template."""

    LABEL = "label"  # the name of what it draws
    TRIGGER = "trigger"  # a word that means nothing
    SEVERAL = "several"  # several words


@dataclass(frozen=True, slots=True)
class CaptionedLora:
    """A LoRA file whose captions are known.

    Attributes:
        captions: all different ones.
        words: of the captions, without those of their template.
        trains_text: whether its text encoder was trained too.
    """

    path: Path
    kind: CaptionKind
    captions: tuple[str, ...]
    words: tuple[str, ...]
    trains_text: bool


def find_captioned_loras(folder: Path) -> list[CaptionedLora]:
    """Read the list of a folder's captioned LoRAs, in its order.

    ``captions.json`` is a list of objects with the fields ``file`` (relative to the folder), ``kind`` (label, trigger
    or several), ``captions``, ``words`` and, optionally, ``trains_text``; further fields are ignored.

    Raises:
        FileMissing: there is no list, or it cannot be read.
        FileUnsupported: it is no such list, or too large. Whether the LoRAs exist is not looked at.
    """
    path = folder / CAPTIONS_FILE
    with open_regular_file(path) as file:
        raw = file.read(MAX_BYTES + 1)
    try:
        if len(raw) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MiB")
        rows = json.loads(raw.decode("utf-8-sig"))
        if not isinstance(rows, list) or not 0 < len(rows) <= MAX_LORAS:
            raise ValueError(f"{len(rows)} rows" if isinstance(rows, list) else type(rows).__name__)
        return [parse_row(folder, row) for row in rows]
    except (ValueError, RecursionError) as error:
        found = " ".join(str(error).split())[:200]
        raise FileUnsupported(
            f"{path}: expected a list of 1 to {MAX_LORAS:,} objects with the fields file, kind ({', '.join(CaptionKind)}), captions and "
            f"words, found {found}; correct it"
        ) from None


def parse_row(folder: Path, row: Any) -> CaptionedLora:
    """One row of the list.

    Raises:
        ValueError: a field is missing, or holds something else.
    """
    match row:
        case {"file": str(file), "kind": str(kind), "captions": [*captions], "words": [*words]}:
            trains_text = row.get("trains_text", False)
            if not isinstance(trains_text, bool):
                raise ValueError(f"trains_text: {trains_text!r}")
            return CaptionedLora(
                folder / relative_path(file), CaptionKind(kind), texts(captions), texts(words), trains_text
            )
    raise ValueError(f"the row {row!r}")


def relative_path(file: str) -> PurePosixPath:
    """A path that leads to a place below its folder.

    Raises:
        ValueError: it leads elsewhere, or cannot be one.
    """
    file.encode()  # no lone surrogates
    path = PurePosixPath(file)
    if not path.parts or path.is_absolute() or ".." in path.parts or set("\\:\0") & set(file):
        raise ValueError(f"file: {file!r}, which is not below the folder")
    return path


def texts(values: list[Any]) -> tuple[str, ...]:
    """Captions or words.

    Raises:
        ValueError: there are none or too many, or one is no text, empty or too long.
    """
    if not 0 < len(values) <= MAX_TEXTS:
        raise ValueError(f"{len(values)} captions or words of one LoRA")
    for value in values:
        if not isinstance(value, str) or not value.strip() or len(value) > MAX_LENGTH:
            raise ValueError(f"{value!r} among captions or words")
        value.encode()  # no lone surrogates
    return tuple(values)
