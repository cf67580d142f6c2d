"""LoRAs whose concept is known, in Model-J's layout or in any folder, packed by layer.

Model-J's layout is ``<split>/.../*.safetensors``. In any other folder
a fixed tenth of the concepts is kept for validation and a tenth is held out, by their names.
"""

import csv
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import torch

from loradex.retrieval.errors import FileCorrupt, FileUnsupported, LoradexError
from loradex.retrieval.lora import LoraFile, WeightsFile
from loradex.retrieval.lora.problems import shown
from loradex.retrieval.probex.batched_factors import Factors

SPLITS: Final = (
    "train",
    "val",
    "test",
    "val_holdout",
    "test_holdout",
)  # the last two hold concepts that no training model has
OTHER_NAMES: Final = {"n02012849": "crane, bird", "n03710721": "maillot, tank suit"}
TENTHS: Final = {0: "test_holdout", 1: "val_holdout"}


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """One LoRA of a zoo whose concept is known."""

    path: Path
    split: str
    class_name: str


def find_labelled(zoo: Path, labels: Path | None = None) -> list[LabelledFile]:
    """Every labelled LoRA below ``zoo``, by split and path; files that cannot be read or have no label are left out.

    A label comes from the file ``labels`` (CSV: file, label and, if wanted, split), else the header (``class_name``, ``imagenet_class_id``), else what is
    written about the file: its first trigger word, or the most frequent tag of its captions.

    Raises:
        FileUnsupported: there is none, or ``labels`` is no such table.
    """
    written = read_labels(labels) if labels else {}
    ordered = [split for split in SPLITS if (zoo / split).is_dir()]
    found = []
    for path in sorted(zoo.rglob("*.safetensors")):
        inside = path.relative_to(zoo)
        row = written.get(inside.as_posix()) or written.get(path.name) or written.get(path.stem)
        label = row[0] if row else None if labels else label_of(path)
        if label:
            split = row[1] if row and row[1] else inside.parts[0] if ordered else split_of(label)
            if split in SPLITS:
                found.append(LabelledFile(path, split, label))
    if not found:
        raise FileUnsupported(
            f"{zoo}: expected LoRAs with a label in the header, a side-car or a CSV, found none; name a table of files and labels with --labels, "
            f"or lay them out as <split>/<model>/*.safetensors with splits {', '.join(SPLITS)}"
        )
    return sorted(found, key=lambda file: (SPLITS.index(file.split), file.path))


def read_labels(path: Path) -> dict[str, tuple[str, str | None]]:
    """(label, split) by file, from a CSV with the columns file, label and, if wanted, split.

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
    strange = {row.get("split") or "" for row in rows} - {"", *SPLITS}
    if strange:
        raise FileUnsupported(
            f"{path}: expected splits among {', '.join(SPLITS)}, found {sorted(strange)[0]!r}; correct it or leave the column out"
        )
    return {
        row["file"]: (" ".join(row["label"].split()), row.get("split") or None)
        for row in rows
        if row["file"] and row["label"].strip()
    }


def label_of(path: Path) -> str | None:
    """The concept that a file's header or side-cars name, if any."""
    try:
        lora = LoraFile.open(path)
    except LoradexError:
        return None
    metadata = lora.header.metadata
    if "class_name" in metadata:
        return metadata["class_name"]
    if "imagenet_class_id" in metadata:
        return imagenet_names().get(metadata["imagenet_class_id"], metadata["imagenet_class_id"])
    written = (*lora.facts.trigger_words, *lora.facts.tags)
    return written[0] if written else None


@cache
def imagenet_names() -> dict[str, str]:
    """English names of ImageNet's classes by WordNet id, as ProbeX's code has them: the first that timm gives, but for two that are another class's too."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {
        number: info.label_name_to_description(number).partition(",")[0] for number in info.label_names()
    } | OTHER_NAMES


def split_of(label: str) -> str:
    """The split of a concept by its name, the same on every machine."""
    return TENTHS.get(int.from_bytes(hashlib.sha256(label.lower().encode()).digest()[:4]) % 10, "train")


def pack(
    files: Sequence[Path], layers: Sequence[str] | None = None, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Factors]:
    """Read layers (all of the first file's when None) of many LoRAs into padded factors, in half precision.

    Raises:
        FileCorrupt: a file lacks a layer, or cannot be read.
    """
    return pack_opened([LoraFile.open(path) for path in files], layers, progress)


def pack_opened(
    opened: Sequence[WeightsFile],
    layers: Sequence[str] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Factors]:
    """The same of files that are open already."""
    names = list(opened[0].layers) if layers is None else list(layers)
    rank = max(max(lora.ranks) for lora in opened)
    shapes = opened[0].shapes
    packed = {
        name: Factors(
            torch.zeros(len(opened), rank, shapes[name][1], dtype=torch.float16),
            torch.zeros(len(opened), shapes[name][0], rank, dtype=torch.float16),
        )
        for name in names
    }
    for row, lora in enumerate(opened):
        for name, update in lora.updates(names).items():
            packed[name].down[row, : update.rank] = update.down
            packed[name].up[row, :, : update.rank] = update.up
            if not packed[name].up[row].isfinite().all() or not packed[name].down[row].isfinite().all():
                raise FileCorrupt(
                    f"{lora.path}: layer {shown(name)}: expected updates within half precision, found larger ones; leave the file out"
                )
        progress(row + 1)
    return packed
