"""Facts that trainers and editors wrote into the header of a file.

Sources: kohya ``library/train_util.py`` and ``train_network.py`` (ss_*), Stability AI's ModelSpec (modelspec.*, which
SwarmUI edits), OneTrainer (ot_*), ai-toolkit (software, name; ``update_training_metadata``), and SimpleTuner
(trained_words; ``helpers/training/save_hooks.py``).
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from loradex.retrieval.lora.facts.keys import Keys
from loradex.retrieval.lora.facts.model import Facts
from loradex.retrieval.lora.facts.text import (
    MAX_WORDS,
    as_list,
    as_object,
    clean_text,
    parse_json,
    split_words,
    unique_words,
)

STATED_TRIGGER_WORDS: Final = (
    "modelspec.trigger_phrase",
    "trigger_phrase",
    "trigger_phrases",
    "trigger_word",
    "trigger_words",
    "trigger",
    "triggers",
    "activation text",
    "activation word",
    "activation words",
    "trained_word",
    "trained_words",
    "instance_prompt",
    "ss_trigger_word",
    "ss_trigger_words",
    "modelspec.trigger_word",
    "modelspec.trigger_words",
)
STATED_NOTES: Final = ("modelspec.description", "modelspec.usage_hint", "modelspec.comment")
HEADER: Final = Keys(
    title=("modelspec.title", "title", "name", "ss_output_name"),
    base_model=("ss_base_model_version", "modelspec.architecture", "ss_sd_model_name"),
    trigger_words=STATED_TRIGGER_WORDS,
    tags=("modelspec.tags", "tags"),
    notes=(*STATED_NOTES, "ss_training_comment"),
)
REPEATED_FOLDER: Final = re.compile(r"\d+_(.+)", re.DOTALL)  # kohya's folders: repeats, instance and class
# Names of folders that say nothing of what is in them.
PLAIN_FOLDERS: Final = {
    *("image", "images", "img", "imgs", "photo", "photos", "pic", "pics", "picture", "pictures"),
    *("data", "dataset", "datasets", "train", "training", "set", "folder", "input"),
    *("source", "sources", "raw", "crop", "crops", "cropped", "resized", "caption", "captions"),
    *("reg", "regularization", "regularisation", "class", "instance", "concept", "concepts"),
    *("default", "new", "test", "final"),
}
MAX_FOLDERS: Final = 10  # whose names count as trigger words


def parse_metadata(metadata: Mapping[str, str]) -> Facts:
    """The facts that a header states."""
    stated = HEADER.read(metadata)
    frequency = as_object(metadata.get("ss_tag_frequency"))
    lone = lone_trigger(frequency)
    triggers = (*stated.trigger_words, *split_words(lone), *class_tokens(metadata.get("ss_datasets")))
    tags = () if lone else frequent_tags(frequency)
    return replace(
        stated,
        trainer=trainer_of(metadata),
        trigger_words=unique_words(triggers),
        tags=unique_words((*tags, *stated.tags)),
    )


def trainer_of(metadata: Mapping[str, str]) -> str | None:
    """The program that trained the LoRA; None if its metadata do not show it."""
    module = metadata.get("ss_network_module", "")
    if "ot_branch" in metadata or "ot_revision" in metadata:
        return "OneTrainer"
    software = metadata.get("software", "")
    if name := clean_text(software if parse_json(software) is None else as_object(software).get("name")):
        return name
    if module.startswith("lycoris"):
        return "kohya with LyCORIS"
    if module or "ss_sd_scripts_commit_hash" in metadata:
        return "kohya"
    if "unet:0:rank" in metadata:
        return "cloneofsimo"
    return "PEFT" if "lora_adapter_metadata" in metadata else None


def lone_trigger(frequency: Mapping[str, Any]) -> str | None:
    """The trigger word that ai-toolkit writes as the only tag, {"1_word": {"word": 1}}; None if these are real tags."""
    if len(frequency) != 1:
        return None
    ((folder, tags),) = frequency.items()
    named = REPEATED_FOLDER.fullmatch(folder)
    if named and isinstance(tags, dict) and len(tags) == 1 and tags.get(named[1]) == 1:
        return named[1]
    return None


def frequent_tags(frequency: Mapping[str, Any]) -> tuple[str, ...]:
    """The tags of kohya's ``ss_tag_frequency``, {folder: {tag: count}} or {tag: count}, by falling frequency."""
    counts: Counter[str] = Counter()
    for folder, value in frequency.items():
        for tag, count in (as_object(value) or {folder: value}).items():
            if type(count) is int and 0 < count < 2**53:
                counts[tag.strip()] += count
    cleaned = (clean_text(tag) for tag, _ in counts.most_common(2 * MAX_WORDS))
    return unique_words(tag for tag in cleaned if tag)


def class_tokens(datasets: str | None) -> tuple[str, ...]:
    """The captions that kohya gives to folders of images: ``class_tokens`` in ``ss_datasets``.

    Those of regularisation images are what the LoRA should not change.
    """
    subsets = [
        as_object(subset) for dataset in as_list(datasets) for subset in as_list(as_object(dataset).get("subsets"))
    ]
    words = (word for subset in subsets if not subset.get("is_reg") for word in split_words(subset.get("class_tokens")))
    return tuple(word for word in words if not is_plain_folder(word))


def words_of_folders(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words in the names of kohya's folders, ``10_zxc girl``: the trigger words if nothing states any."""
    regularisation = as_object(metadata.get("ss_reg_dataset_dirs"))
    folders = (*as_object(metadata.get("ss_dataset_dirs")), *as_object(metadata.get("ss_tag_frequency")))
    named = (REPEATED_FOLDER.fullmatch(folder) for folder in folders if folder not in regularisation)
    words = (word for match in named if match for word in split_words(match[1]) if not is_plain_folder(word))
    return unique_words(words)[:MAX_FOLDERS]


def is_plain_folder(name: str) -> bool:
    """Whether the name of a folder says nothing of what is in it."""
    return all(part in PLAIN_FOLDERS or part.isdigit() for part in re.split(r"[\W_]+", name.lower()) if part)
