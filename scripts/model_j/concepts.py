"""Concepts of Model-J's LoRAs by the names of the official code, and those with the same prompt."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.text_encoder import normalize_text
from loradex.retrieval.training.concept_dataset import HELD_OUT, SEEN, TRAINING, VALIDATION
from loradex.retrieval.training.labelled_loras import LabelledLora, imagenet_names

NamedLoras = Sequence[tuple[LabelledLora, str | None]]


def name_by_imagenet_class(files: Sequence[LabelledLora]) -> list[tuple[LabelledLora, str | None]]:
    """Each file with the name of its ImageNet class, as in the official code, and the id of the class.

    Files without a class in their header keep their name; their id is None.
    """
    names = imagenet_names()
    class_ids = [LoraFile.open(file.path).header.metadata.get("imagenet_class_id") for file in files]
    return [
        (replace(file, class_name=names.get(class_id or "", file.class_name)), class_id)
        for file, class_id in zip(files, class_ids, strict=True)
    ]


def check_splits(folder: Path, files: Sequence[LabelledLora]) -> list[LabelledLora]:
    """Check that no training model has a held-out concept.

    Returns:
        The files, without those of seen concepts that no training model has.

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


def find_same_prompts(files: NamedLoras) -> list[list[str]]:
    """Groups of concepts with the same prompt as CLIP reads it, in lower case."""
    groups: dict[str, set[str]] = {}
    for file, class_id in files:
        groups.setdefault(normalize_text(file.class_name), set()).add(
            f"{file.class_name} ({class_id})" if class_id else file.class_name
        )
    return [sorted(group) for _, group in sorted(groups.items()) if len(group) > 1]
