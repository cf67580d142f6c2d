"""Side-cars: ``<stem>.metadata.json`` beside a LoRA, which ComfyUI-Lora-Manager reads and keeps.

The manager skips a model whose side-car lacks one of the eight fields from ``file_name`` to ``preview_url``
(py/utils/models.py), and keeps keys that it does not know, such as Loradex's own. It shows people ``notes``;
``modelDescription`` is left to Civitai's text. To write another field, add it in ``desired_fields``.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from loradex.app.describe.json_edit import indent_of, member_spans, set_members, set_nested_members
from loradex.app.describe.ownership import plan_changes, written_by_loradex
from loradex.app.describe.predictions import (
    Words,
    certain_family,
    likely_labels,
    predictions_document,
    read_or_written,
    summary_line,
    trigger_words,
)
from loradex.app.describe.text_edit import FieldChange, PlannedEdit, read_text, replace_surrogates
from loradex.app.indexing.file_reader import display_name
from loradex.app.pictures import pictures_beside
from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import TRAINED_WORDS, read_facts
from loradex.retrieval.lora.regular_file import is_regular_file
from loradex.retrieval.words import Word

SIDE_CAR_SUFFIX: Final = ".metadata.json"
BOM: Final = "\ufeff"
EMPTY_LISTS: Final[Mapping[str, list[str]]] = {"tags": [], TRAINED_WORDS: []}  # other fields are emptied with ""
# The manager's names of families (py/utils/constants.py).
BASE_MODELS: Final = {
    "sd1": "SD 1.5",
    "sd2": "SD 2.1",
    "sdxl": "SDXL 1.0",
    "sd3": "SD 3",
    "flux1": "Flux.1 D",
    "flux2": "Flux.2 D",
    "chroma": "Chroma",
    "lumina2": "Lumina",
    "qwen-image": "Qwen",
    "wan": "Wan Video",
    "hunyuan-video": "Hunyuan Video",
    "ltx-video": "LTXV",
    "z-image": "ZImageTurbo",
    "anima": "Anima",
    "auraflow": "AuraFlow",
    "cogvideox": "CogVideoX",
    "hidream": "HiDream",
    "mochi": "Mochi",
}


def new_side_car(
    lora: LoraFile, answer: LabelAnswer, space: str | None = None, words: Sequence[Word] = ()
) -> dict[str, Any]:
    """A new side-car for download: without the file's folder, and without the picture beside it.

    ``words`` are the likely ones in the file's weights.

    Raises:
        FileError: the LoRA cannot be read.
    """
    desired = desired_fields(lora, answer, {}, words) | {
        "file_path": replace_surrogates(lora.path.name),
        "preview_url": "",
    }
    return json.loads(apply_changes(plan_changes({}, desired, predictions_document(answer, space, words)), "{}"))


def plan_side_car(lora: LoraFile, answer: LabelAnswer, space: str | None = None, words: Words = None) -> PlannedEdit:
    """Plan the edit of a file's side-car; nothing is written.

    ``words`` are the likely ones in the file's weights; if they could not be read, those stay that were written before.

    Raises:
        DescriptionError: the side-car exists and cannot be edited.
        FileError: the LoRA cannot be read.
    """
    target = lora.path.with_name(lora.path.stem + SIDE_CAR_SUFFIX)
    before = read_text(target)
    text = "{}" if before is None else before.removeprefix(BOM)
    try:
        fields = parse_fields(text)
        in_weights = read_or_written(words, fields)
        desired = desired_fields(lora, answer, fields, in_weights)
        changes = plan_changes(fields, desired, predictions_document(answer, space, in_weights))
        after = apply_changes(changes, text)
    except DescriptionError as error:
        raise DescriptionError(f"{target}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DescriptionError(
            f"{target}: expected a JSON object, found none that can be changed: {error}; mend it, or move it away"
        ) from None
    return PlannedEdit(target, before, BOM + after if before and before.startswith(BOM) else after, changes)


def parse_fields(text: str) -> dict[str, Any]:
    """The fields of a side-car; ``civitai.trainedWords`` is one of them besides ``civitai``.

    Raises:
        ValueError: the text is not a JSON object, or has a key twice.
    """
    fields = {key: json.loads(text[start:end]) for key, (start, end) in member_spans(text).items()}
    civitai = fields.get("civitai") or {}
    if isinstance(civitai, dict) and "trainedWords" in civitai:
        return {**fields, TRAINED_WORDS: civitai["trainedWords"]}
    return fields


def desired_fields(
    lora: LoraFile, answer: LabelAnswer, fields: Mapping[str, Any], words: Sequence[Word]
) -> dict[str, Any]:
    """Every field that Loradex fills, in the manager's order, with its value; None where it has none.

    Args:
        lora: the file.
        answer: its labels.
        fields: the side-car as it is.
        words: the likely ones in its weights.
    """
    # The base model of other side-cars is in Civitai's words, as the manager expects; that of the header is not.
    side_car_facts = read_facts(lora.path, {})
    picture = next(pictures_beside(lora.path), None)
    desired = {
        "file_name": replace_surrogates(lora.path.stem),
        "model_name": lora.facts.title or replace_surrogates(display_name(lora.path)),
        "file_path": replace_surrogates(lora.path.absolute().as_posix()),
        "size": lora.header.size,
        "modified": modification_time(lora),
        "sha256": sha256_of(lora, fields),
        "base_model": side_car_facts.base_model or BASE_MODELS.get(certain_family(lora), "Unknown"),
        "preview_url": replace_surrogates(picture.absolute().as_posix()) if picture else "",
        "notes": summary_line(lora, answer, words),
        "tags": likely_labels(answer) or None,
    }
    # The manager reads Civitai's facts from this file, but only as long as the field "civitai" is empty.
    has_civitai_file = is_regular_file(lora.path.with_name(lora.path.stem + ".civitai.info"))
    if has_civitai_file or not isinstance(fields.get("civitai") or {}, dict):
        return desired
    return desired | {TRAINED_WORDS: trigger_words(lora, words) or None}


def sha256_of(lora: LoraFile, fields: Mapping[str, Any]) -> str:
    """The file's SHA-256; the file is hashed only if its side-car does not have that of its present state."""
    written = written_by_loradex(fields)
    if "sha256" not in written:
        return fields.get("sha256") or lora.sha256
    is_unchanged = (written.get("size"), written.get("modified")) == (lora.header.size, modification_time(lora))
    return written["sha256"] if is_unchanged else lora.sha256


def modification_time(lora: LoraFile) -> float:
    """When the file changed last, in seconds since 1970."""
    return lora.header.stamp[2] / 1e9


def apply_changes(changes: Sequence[FieldChange], text: str) -> str:
    """The text of a side-car after some changes; a field whose new value is None is emptied."""
    values = {
        change.field: EMPTY_LISTS.get(change.field, "") if change.new is None else change.new for change in changes
    }
    trained_words, indent = values.pop(TRAINED_WORDS, None), indent_of(text)
    text = set_members(text, values, indent)
    if trained_words is None:
        return text
    return set_nested_members(text, "civitai", {"trainedWords": trained_words}, indent)
