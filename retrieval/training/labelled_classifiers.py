"""Classifiers whose headers name the categories they were trained on, as those of Model-J do."""

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.weights_folder import find_weights
from loradex.retrieval.training.labelled_loras import split_of

CATEGORIES_KEY: Final = "dataset_chosen_targets"  # in the headers of Model-J; a list of strings as Python writes it
MAX_LIST_LENGTH: Final = 2**20  # characters of such a list
MAX_NAME_LENGTH: Final = 200  # characters of a category
SPLITS: Final = ("train", "val", "test")
SPLIT_ALIASES: Final = {"val_holdout": "val", "test_holdout": "test"}  # models are held out here, not categories


@dataclass(frozen=True, slots=True)
class LabelledClassifier:
    """A classifier whose header names the categories it was trained on."""

    path: Path
    split: str
    categories: tuple[str, ...]


def find_classifiers(folder: Path) -> list[LabelledClassifier]:
    """Find the classifiers below ``folder`` whose headers name categories, ordered by split and path.

    Returns an empty list unless most of the files are such classifiers. Splits are those of Model-J's layout,
    ``<split>/.../*.safetensors``; in any other folder, a tenth of the models is for validation and a tenth for test, by
    their names.
    """
    has_split_folders = any((folder / split).is_dir() for split in SPLITS)
    classifiers, other_files = list[LabelledClassifier](), 0
    for path in find_weights(folder):
        name = "/".join(path.resolve().parts[-2:])
        split = path.relative_to(folder).parts[0] if has_split_folders else split_of(name)
        split = SPLIT_ALIASES.get(split, split)
        categories = read_categories(path)
        other_files += categories is None
        if split in SPLITS and categories:
            classifiers.append(LabelledClassifier(path, split, categories))
    if len(classifiers) <= other_files:
        return []
    return sorted(classifiers, key=lambda model: (SPLITS.index(model.split), model.path))


def read_categories(path: Path) -> tuple[str, ...] | None:
    """The categories that the header of a full model names; None if it names none, is a LoRA's, or cannot be read."""
    try:
        header = Header.read(path)
    except FileError:
        return None
    categories = parse_categories(header.metadata)
    return None if categories is None or is_lora(header) else categories


def parse_categories(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """The categories in a header's metadata: a list of strings in JSON or as Python writes it; None if there is none.

    Nothing is evaluated.
    """
    text = metadata.get(CATEGORIES_KEY, "")
    if not 0 < len(text) <= MAX_LIST_LENGTH:
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            names = parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            continue
        if isinstance(names, list) and names and all(is_category_name(name) for name in names):
            return tuple(names)
    return None


def is_category_name(value: object) -> bool:
    """Whether a value can be the name of a category: a printable text of bounded length."""
    return isinstance(value, str) and len(value.strip()) > 0 and len(value) <= MAX_NAME_LENGTH and value.isprintable()


def is_lora(header: Header) -> bool:
    """Whether a header is that of a LoRA."""
    try:
        LoraFile.from_header(header)
    except FileError:
        return False
    return True
