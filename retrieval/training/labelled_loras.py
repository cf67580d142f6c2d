"""LoRAs whose concept is known, found in Model-J's layout or in any folder.

Model-J's layout is ``<split>/.../*.safetensors``. In any other folder, a fixed tenth of the concepts is kept for
validation and a tenth is held out, by their names.
"""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileUnsupported, LoradexError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import read_facts
from loradex.retrieval.lora.weights_folder import find_weights

# the last two hold concepts that no training model has
SPLITS: Final = ("train", "val", "test", "val_holdout", "test_holdout")
KEPT_APART: Final = SPLITS[3], SPLITS[4]
SPLIT_OF_TENTH: Final = {0: "test_holdout", 1: "val_holdout"}  # the other tenths are for training
GROWN_KEY: Final = "grown"  # of the header of a LoRA that was grown from the base model
NAME_OVERRIDES: Final = {"n02012849": "crane, bird", "n03710721": "maillot, tank suit"}


@dataclass(frozen=True, slots=True)
class LabelledLora:
    """A LoRA file whose concept is known.

    Attributes:
        grown: whether it was grown from the base model.
    """

    path: Path
    split: str
    class_name: str
    grown: bool = False


def find_labelled_loras(zoo: Path, labels: Path | None = None) -> list[LabelledLora]:
    """Find every labelled LoRA below ``zoo``, ordered by split and path.

    A label comes from the table ``labels``, or without one from the header (``class_name``, ``imagenet_class_id``), or
    else from the first trigger word or the most frequent tag. Files without a label are left out.

    Args:
        zoo: a folder.
        labels: a CSV table with the columns file, label and, optionally, split.

    Raises:
        FileUnsupported: there are none, or ``labels`` is no such table.
    """
    table = read_labels(labels) if labels else {}
    has_split_folders = any((zoo / split).is_dir() for split in SPLITS)
    loras = []
    for path in find_weights(zoo):
        relative = path.relative_to(zoo)
        row = table.get(relative.as_posix()) or table.get(path.name) or table.get(path.stem)
        lora = open_readable(path)
        label = row[0] if row else None if labels or not lora else label_of(path, lora)
        if label:
            split = row[1] if row and row[1] else relative.parts[0] if has_split_folders else split_of(label)
            if split in SPLITS:
                loras.append(LabelledLora(path, split, label, lora is not None and GROWN_KEY in lora.header.metadata))
    if not loras:
        raise FileUnsupported(
            f"{zoo}: expected LoRAs with a label in the header, a side-car or a CSV, found none; name a table of files and labels with --labels, "
            f"or lay them out as <split>/<model>/*.safetensors with splits {', '.join(SPLITS)}"
        )
    return sorted(loras, key=lambda lora: (SPLITS.index(lora.split), lora.path))


def add_grown(real: Sequence[LabelledLora], grown: Sequence[LabelledLora]) -> tuple[list[LabelledLora], int]:
    """Put LoRAs that were grown from the base model beside real ones, so that no concept is kept apart and trained on.

    Concepts are the same if their names are, whatever the case. Grown files of concepts that the real ones keep for
    validation or hold out are left out. Where the real ones have validation concepts, the validation concepts of the
    grown ones are trained on.

    Returns:
        The files, real ones first, and how many grown ones were left out.
    """
    spelling = {concept_key(file.class_name): file.class_name for file in real}
    kept_apart = {concept_key(file.class_name) for file in real if file.split in KEPT_APART}
    has_validation = any(file.split == KEPT_APART[0] for file in real)
    files = list(real)
    for file in grown:
        key = concept_key(file.class_name)
        if key not in kept_apart:
            seen = key in spelling or (has_validation and file.split == KEPT_APART[0])
            split = "train" if seen and file.split in KEPT_APART else file.split
            files.append(LabelledLora(file.path, split, spelling.get(key, file.class_name), grown=True))
    return sorted(files, key=lambda lora: (lora.grown, SPLITS.index(lora.split), lora.path)), len(real) + len(
        grown
    ) - len(files)


def concept_key(name: str) -> str:
    """What the spellings of a concept's name have in common."""
    return " ".join(name.casefold().split())


def read_labels(path: Path) -> dict[str, tuple[str, str | None]]:
    """Read (label, split) by file from a CSV table with the columns file, label and, optionally, split.

    Raises:
        FileUnsupported: it is no such table.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileUnsupported(
            f"{path}: expected a CSV table with columns file and label, found: {error}; check the path"
        ) from None
    if not rows or not {"file", "label"} <= rows[0].keys():
        raise FileUnsupported(
            f"{path}: expected a CSV table with columns file and label, found {sorted(rows[0]) if rows else 'no rows'}; name the columns so"
        )
    unknown_splits = {row.get("split") or "" for row in rows} - {"", *SPLITS}
    if unknown_splits:
        raise FileUnsupported(
            f"{path}: expected splits among {', '.join(SPLITS)}, found {sorted(unknown_splits)[0]!r}; correct it or leave the column out"
        )
    return {
        row["file"]: (" ".join(row["label"].split()), row.get("split") or None)
        for row in rows
        if row["file"] and row["label"].strip()
    }


def open_readable(path: Path) -> LoraFile | None:
    """Open a LoRA; None if it cannot be read."""
    try:
        return LoraFile.open(path)
    except LoradexError:
        return None


def label_of(path: Path, lora: LoraFile) -> str | None:
    """The concept that a LoRA's header or side-cars name; None if there is none."""
    metadata = lora.header.metadata
    if "class_name" in metadata:
        return metadata["class_name"]
    if "imagenet_class_id" in metadata:
        return imagenet_names().get(metadata["imagenet_class_id"], metadata["imagenet_class_id"])
    stated = read_facts(path, metadata, guess=False)
    words = (*stated.trigger_words, *stated.tags, *lora.facts.trigger_words)
    return words[0] if words else None


@cache
def imagenet_names() -> dict[str, str]:
    """English names of ImageNet's classes by WordNet id, as in ProbeX's code.

    The first name that timm gives, except for two that are another class's name too.
    """
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {
        number: info.label_name_to_description(number).partition(",")[0] for number in info.label_names()
    } | NAME_OVERRIDES


def split_of(label: str) -> str:
    """The split of a concept by its name, the same on every machine."""
    return SPLIT_OF_TENTH.get(
        int.from_bytes(hashlib.sha256(label.lower().encode("utf-8", "surrogatepass")).digest()[:4]) % 10, "train"
    )
