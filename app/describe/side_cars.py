"""Side-cars: what Loradex found, as fields of ``<stem>.metadata.json``, which ComfyUI-Lora-Manager reads and keeps.

The manager leaves a model out whose side-car lacks one of the eight fields from ``file_name`` to ``preview_url`` (py/utils/models.py), and keeps
keys that it does not know, so Loradex's own lies safe there. ``notes`` is what people see of it; ``modelDescription`` is left to Civitai's text.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from loradex.app.describe.json_edit import members_of, step_of, with_members, with_members_within
from loradex.app.describe.ownership import changes_of, wrote_in
from loradex.app.describe.predictions import certain_family, likely_labels, said_of, summary
from loradex.app.describe.text_edit import FieldChange, Plan, clean, read_text
from loradex.app.indexing.file_reader import name_of
from loradex.app.previews import pictures_beside
from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import TRAINED_WORDS, facts_of, is_there

ENDING: Final = ".metadata.json"
BOM: Final = "\ufeff"
EMPTY: Final[Mapping[str, list[str]]] = {"tags": [], TRAINED_WORDS: []}
# the manager's words for families (py/utils/constants.py)
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
}


def side_car_of(lora: LoraFile, answer: LabelAnswer, space: str | None = None) -> dict[str, Any]:
    """A fresh side-car for a file that will lie elsewhere: without its folder, and with no picture beside it.

    Raises:
        FileError: the file cannot be read.
    """
    wanted = fields_of(lora, answer, {}) | {"file_path": clean(lora.path.name), "preview_url": ""}
    return json.loads(text_with(changes_of({}, wanted, said_of(answer, space)), "{}"))


def plan_side_car(lora: LoraFile, answer: LabelAnswer, space: str | None = None) -> Plan:
    """What a file's side-car is to say, and what changes by that; nothing is written.

    Raises:
        DescriptionError: the side-car is there, and is none that can be changed.
        FileError: the LoRA cannot be read.
    """
    target = lora.path.with_name(lora.path.stem + ENDING)
    before = read_text(target)
    text = "{}" if before is None else before.removeprefix(BOM)
    try:
        there = fields_in(text)
        changes = changes_of(there, fields_of(lora, answer, there), said_of(answer, space))
        after = text_with(changes, text)
    except DescriptionError as error:
        raise DescriptionError(f"{target}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DescriptionError(
            f"{target}: expected a JSON object, found none that can be changed: {error}; mend it, or move it away"
        ) from None
    return Plan(target, before, BOM + after if before and before.startswith(BOM) else after, changes)


def fields_in(text: str) -> dict[str, Any]:
    """The fields of a side-car, the trained words besides.

    Raises:
        ValueError: it is no JSON object, or has a key twice.
    """
    places = members_of(text)
    there = {key: json.loads(text[start:end]) for key, (start, end) in places.items()}
    trained = there.get("civitai") or {}
    return (
        {**there, TRAINED_WORDS: trained["trainedWords"]}
        if isinstance(trained, dict) and "trainedWords" in trained
        else there
    )


def fields_of(lora: LoraFile, answer: LabelAnswer, there: Mapping[str, Any]) -> dict[str, Any]:
    """Every field that Loradex fills, in the manager's order; None where it has nothing to say."""
    elsewhere = facts_of(lora.path, {})  # the side-cars, which name base models in Civitai's words, as the manager does
    picture = next(pictures_beside(lora.path), None)
    wanted = {
        "file_name": clean(lora.path.stem),
        "model_name": lora.facts.title or clean(name_of(lora.path)),
        "file_path": clean(lora.path.absolute().as_posix()),
        "size": lora.header.size,
        "modified": lora.header.stamp[2] / 1e9,
        "sha256": hash_of(lora, there),
        "base_model": elsewhere.base_model or BASE_MODELS.get(certain_family(lora), "Unknown"),
        "preview_url": clean(picture.absolute().as_posix()) if picture else "",
        "notes": summary(lora, answer),
        "tags": likely_labels(answer) or None,
    }
    # the manager takes what Civitai says from this file, but only where "civitai" is still empty
    civitai_is_kept_apart = is_there(lora.path.with_name(lora.path.stem + ".civitai.info"))
    if civitai_is_kept_apart or not isinstance(there.get("civitai") or {}, dict):
        return wanted
    return wanted | {TRAINED_WORDS: list(lora.facts.trigger_words) or None}


def hash_of(lora: LoraFile, there: Mapping[str, Any]) -> str:
    """The file's SHA-256, which is read anew only where none is known of the file as it is."""
    wrote = wrote_in(there)
    if "sha256" not in wrote:
        return there.get("sha256") or lora.sha256
    unchanged = (wrote.get("size"), wrote.get("modified")) == (lora.header.size, lora.header.stamp[2] / 1e9)
    return wrote["sha256"] if unchanged else lora.sha256


def text_with(changes: Sequence[FieldChange], text: str) -> str:
    """The text of a side-car after some changes; what is taken back is left empty."""
    values = {change.field: (EMPTY.get(change.field, "") if change.new is None else change.new) for change in changes}
    trained, step = values.pop(TRAINED_WORDS, None), step_of(text)
    text = with_members(text, values, step)
    return text if trained is None else with_members_within(text, "civitai", {"trainedWords": trained}, step)
