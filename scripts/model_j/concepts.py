"""The concepts of Model-J's LoRAs by the names of the official code, and which of them no prompt can tell apart."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.text_encoder import clean
from loradex.retrieval.training.concept_dataset import HELD_OUT, SEEN, TRAINING, VALIDATION
from loradex.retrieval.training.labelled_loras import LabelledFile, imagenet_names

Named = Sequence[tuple[LabelledFile, str | None]]


def renamed(files: Sequence[LabelledFile]) -> list[tuple[LabelledFile, str | None]]:
    """Files named after their ImageNet class where their header has one, as the official code names them, each with the class's id."""
    names = imagenet_names()
    numbers = [LoraFile.open(file.path).header.metadata.get("imagenet_class_id") for file in files]
    return [
        (replace(file, class_name=names.get(number or "", file.class_name)), number)
        for file, number in zip(files, numbers, strict=True)
    ]


def checked(folder: Path, files: Sequence[LabelledFile]) -> list[LabelledFile]:
    """The files, but for models to be named among training concepts whose own is not there.

    Raises:
        FileUnsupported: there are no models of held-out concepts, or a held-out concept is one of ``train``.
    """
    trained = {file.class_name for file in files if file.split == TRAINING}
    held_out = {file.class_name for file in files if file.split in (VALIDATION, HELD_OUT)}
    if trained & held_out:
        raise FileUnsupported(
            f"{folder}: expected held-out concepts that no training model has, found {min(trained & held_out)!r} in both; move its models"
        )
    if not any(file.split == HELD_OUT for file in files):
        raise FileUnsupported(f"{folder}: expected models in {HELD_OUT}, found none; fetch or add some")
    return [file for file in files if file.split not in ("val", SEEN) or file.class_name in trained]


def same_prompt(files: Named) -> list[list[str]]:
    """Groups of concepts with the same prompt, as CLIP reads it: in small letters."""
    groups: dict[str, set[str]] = {}
    for file, number in files:
        groups.setdefault(clean(file.class_name), set()).add(
            f"{file.class_name} ({number})" if number else file.class_name
        )
    return [sorted(group) for _, group in sorted(groups.items()) if len(group) > 1]
