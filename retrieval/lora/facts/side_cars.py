"""Facts in the files that people and managers of LoRAs keep beside a file.

Sources: A1111 ``extensions-builtin/Lora/ui_edit_user_metadata.py``, SwarmUI ``T2IModel.cs`` (ToNetObject) and
``T2IModelHandler.cs``, ComfyUI-Lora-Manager ``py/utils/models.py``, rgthree-comfy ``py/server/utils_info.py``,
StabilityMatrix ``ConnectedModelInfo.cs``, and Civitai's API, whose answers Civitai Helper and SD.Next keep. A text file
is what several loaders of ComfyUI and RuinedFooocus take trigger words from; A1111 shows it as a description.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora.facts.keys import Keys
from loradex.retrieval.lora.facts.metadata import STATED_NOTES, STATED_TRIGGER_WORDS
from loradex.retrieval.lora.facts.model import Facts
from loradex.retrieval.lora.facts.text import (
    LINE_BREAK,
    as_list,
    as_object,
    clean_notes,
    clean_text,
    split_words,
    unique_words,
)
from loradex.retrieval.lora.regular_file import open_regular_file

MAX_SIDE_CAR_BYTES: Final = 4 * 2**20
MAX_TEXT_BYTES: Final = 2**16  # of a text file
LORADEX_KEY: Final = "loradex"  # the key of a side-car that holds what Loradex itself wrote
WRITTEN_KEY: Final = "wrote"  # the key below it that holds the values that Loradex wrote into other fields
TRAINED_WORDS: Final = "civitai.trainedWords"  # path of a nested field, as it stands below ``WRITTEN_KEY``
EDITED: Final = Keys(  # <name>.json and <name>.swarm.json, which people edit by A1111, SwarmUI and others
    title=("modelspec.title", "title", "model/name", "model_name", "name"),
    base_model=("sd version", "base_model"),
    trigger_words=("activation text", *STATED_TRIGGER_WORDS),
    tags=("modelspec.tags", "tags", "model/tags"),
    notes=("notes", "description", *STATED_NOTES),
)
LORA_MANAGER: Final = Keys(
    title=("model_name",),
    base_model=("base_model",),
    trigger_words=("civitai/trainedWords",),
    tags=("tags",),
    notes=("notes",),
)
RGTHREE: Final = Keys(title=("name",), base_model=("baseModel",), trigger_words=("triggerWords",), notes=("userNote",))
STABILITY_MATRIX: Final = Keys(
    title=("UserTitle", "ModelName"), base_model=("BaseModel",), trigger_words=("TrainedWords",), tags=("Tags",)
)
CIVITAI: Final = Keys(  # one version of a model
    title=("model/name",),
    base_model=("baseModel",),
    trigger_words=("trainedWords", "triggerWords"),
    tags=("model/tags",),
)
# A text that names trigger words is prose beside them; one without a label is a list of words, or prose.
LABEL: Final = re.compile(
    r"\W*(?:trigger|activation|trained|key)[ _-]?(?:words?|phrases?|text|tokens?|prompts?|tags?)?(?:\(s\))?\W{0,3}[:=：][*\s]*(.*)",
    re.IGNORECASE,
)
SENTENCE: Final = re.compile(r"://|[.!?。！？]\s+\S|[.!?。！？]\s*$")
MAX_WORDS_OF_A_PHRASE: Final = 12  # more make a sentence


def parse_edited(entries: Mapping[str, Any]) -> Facts:
    """``<name>.json`` and ``<name>.swarm.json``; or a model with its only version, as Civitai's API returns it."""
    versions = as_list(entries.get("modelVersions"))
    facts = EDITED.read(entries)
    return facts.merged(CIVITAI.read(as_object(versions[0]))) if len(versions) == 1 else facts


def parse_lora_manager(entries: Mapping[str, Any]) -> Facts:
    """ComfyUI-Lora-Manager's ``<name>.metadata.json``, without the values that Loradex itself wrote into it."""
    written = as_object(as_object(entries.get(LORADEX_KEY)).get(WRITTEN_KEY))
    facts = LORA_MANAGER.read(entries)
    return replace(
        facts,
        title=facts.title if facts.title != clean_text(written.get("model_name")) else None,
        base_model=facts.base_model if facts.base_model != clean_text(written.get("base_model")) else None,
        trigger_words=without_written(facts.trigger_words, written.get(TRAINED_WORDS)),
        tags=without_written(facts.tags, written.get("tags")),
        notes=facts.notes if facts.notes != clean_notes(written.get("notes")) else None,
    )


def without_written(words: tuple[str, ...], written: Any) -> tuple[str, ...]:
    """The words that Loradex did not write itself, so that its predictions are never read back as a person's words."""
    return tuple(word for word in words if word not in split_words(written))


def parse_rgthree(entries: Mapping[str, Any]) -> Facts:
    """rgthree-comfy's ``<name>.safetensors.rgthree-info.json``, which lists trained words with tags of the header."""
    stated: list[Any] = []
    tags: list[Any] = []
    for word in as_list(entries.get("trainedWords")):
        (tags if is_tag(word) else stated).append(word)
    facts = RGTHREE.read(entries)
    return replace(
        facts, trigger_words=unique_words((*facts.trigger_words, *split_words(stated))), tags=split_words(tags)
    )


def is_tag(word: Any) -> bool:
    """Whether rgthree-comfy found a word only among the tags in the header."""
    return isinstance(word, dict) and bool(word.get("metadata")) and not word.get("civitai") and not word.get("user")


def parse_text(text: str) -> Facts:
    """A text: trigger words if it is a list of them, or names them after a label; else notes."""
    labelled: list[str] = []
    others: list[str] = []
    after_label = False
    for line in filter(str.strip, LINE_BREAK.split(text)):
        label = LABEL.match(line)
        found = label[1] if label else line
        (labelled if label or after_label else others).append(found)
        after_label = label is not None and not found  # the words stand on the next line
    words = unique_words(word for line in labelled for word in split_words(line))
    if words:
        return Facts(trigger_words=words, notes=clean_notes("\n".join(others)))
    words = split_words(text)
    if any(SENTENCE.search(word) or len(word.split()) > MAX_WORDS_OF_A_PHRASE for word in words):
        return Facts(notes=clean_notes(text))
    return Facts(trigger_words=words)


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Read the JSON object of a side-car; None if it cannot be read."""
    try:
        with open_regular_file(path) as file:
            raw = file.read(MAX_SIDE_CAR_BYTES + 1)
        document = json.loads(raw.decode("utf-8-sig")) if len(raw) <= MAX_SIDE_CAR_BYTES else None
    except (FileMissing, OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or as Windows writes it; empty if it is too large for a note, or is no text."""
    try:
        with open_regular_file(path) as file:
            raw = file.read(MAX_TEXT_BYTES + 1)
    except (FileMissing, OSError, ValueError):
        return ""
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = raw.decode("utf-16", "replace")
    else:
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", "replace")
    return text if len(raw) <= MAX_TEXT_BYTES and "\0" not in text else ""
