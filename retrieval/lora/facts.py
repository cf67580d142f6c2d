"""Facts that people and trainers wrote about a LoRA, read from the metadata of its header and from side-cars.

Nothing is checked against the weights. Sources: kohya ``library/train_util.py`` (ss_*), Stability AI's ModelSpec
(modelspec.*), OneTrainer (ot_*), ai-toolkit (software), and the side-cars of A1111, ComfyUI-Lora-Manager,
StabilityMatrix and Civitai Helper.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora.regular_file import is_regular_file, open_regular_file

MAX_SIDE_CAR_BYTES: Final = 4 * 2**20
MAX_TEXT_LENGTH: Final = 200  # characters of a word or a title
MAX_NOTES_LENGTH: Final = 2000
MAX_WORDS: Final = 50
LORADEX_KEY: Final = "loradex"  # the key of a side-car that holds what Loradex itself wrote
WRITTEN_KEY: Final = "wrote"  # the key below it that holds the values that Loradex wrote into other fields
TRAINED_WORDS: Final = "civitai.trainedWords"  # path of a nested field, as it stands below ``WRITTEN_KEY``
BASE_MODEL_KEYS: Final = ("ss_base_model_version", "modelspec.architecture", "ss_sd_model_name")


@dataclass(frozen=True, slots=True)
class Facts:
    """What people and trainers wrote about a LoRA.

    Attributes:
        base_model: in the words of its source.
        tags: those of training captions by falling frequency.
        sources: names of the side-cars that state something, and ``header`` for the LoRA itself.
        broken: names of the side-cars that could not be read.
    """

    title: str | None = None
    base_model: str | None = None
    trainer: str | None = None
    trigger_words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    notes: str | None = None
    sources: tuple[str, ...] = ()
    broken: tuple[str, ...] = field(default=(), compare=False)

    def merged(self, other: "Facts") -> "Facts":
        """These facts, completed by those of ``other``."""
        return Facts(
            self.title or other.title,
            self.base_model or other.base_model,
            self.trainer or other.trainer,
            unique_words((*self.trigger_words, *other.trigger_words)),
            unique_words((*self.tags, *other.tags)),
            self.notes or other.notes,
            (*self.sources, *other.sources),
            (*self.broken, *other.broken),
        )


def read_facts(path: Path, metadata: Mapping[str, str]) -> Facts:
    """Read all that is written about a file; side-cars, which people edit, go before its header."""
    facts = Facts()
    for ending, parse in SIDE_CARS.items():
        side_car = path.with_name(path.stem + ending)
        if side_car != path and is_regular_file(side_car):
            entries = read_json_object(side_car)
            facts = facts.merged(
                Facts(broken=(side_car.name,)) if entries is None else with_source(parse(entries), side_car.name)
            )
    return facts.merged(header_facts(metadata))


def header_facts(metadata: Mapping[str, str]) -> Facts:
    """The facts that stand in the header of a file, with their source."""
    return with_source(parse_metadata(metadata), "header")


def with_source(facts: Facts, source: str) -> Facts:
    """The facts with their source; empty facts have none."""
    return replace(facts, sources=(source,)) if facts != Facts() else facts


def parse_metadata(metadata: Mapping[str, str]) -> Facts:
    """The facts that the trainer wrote into the header."""
    triggers = (*split_words(metadata.get("modelspec.trigger_phrase")), *class_tokens(metadata.get("ss_datasets")))
    tags = (*frequent_tags(metadata.get("ss_tag_frequency")), *split_words(metadata.get("modelspec.tags")))
    base_models = (clean_text(metadata.get(key)) for key in BASE_MODEL_KEYS)
    return Facts(
        title=clean_text(metadata.get("modelspec.title")) or clean_text(metadata.get("ss_output_name")),
        base_model=next(filter(None, base_models), None),
        trainer=trainer_of(metadata),
        trigger_words=unique_words(triggers),
        tags=unique_words(tags),
        notes=clean_text(metadata.get("modelspec.description"), MAX_NOTES_LENGTH)
        or clean_text(metadata.get("ss_training_comment"), MAX_NOTES_LENGTH),
    )


def trainer_of(metadata: Mapping[str, str]) -> str | None:
    """The program that trained the LoRA; None if its metadata do not show it."""
    module = metadata.get("ss_network_module", "")
    if "ot_branch" in metadata or "ot_revision" in metadata:
        return "OneTrainer"
    if name := clean_text(as_object(metadata.get("software")).get("name")):
        return name
    if module.startswith("lycoris"):
        return "kohya with LyCORIS"
    if module or "ss_sd_scripts_commit_hash" in metadata:
        return "kohya"
    if "unet:0:rank" in metadata:
        return "cloneofsimo"
    return "PEFT" if "lora_adapter_metadata" in metadata else None


def frequent_tags(frequency: str | None) -> tuple[str, ...]:
    """The tags of kohya's ``ss_tag_frequency``, {folder: {tag: count}}, by falling frequency."""
    counts: Counter[str] = Counter()
    for folder in as_object(frequency).values():
        for tag, count in as_object(folder).items():
            if type(count) is int and 0 < count < 2**53:
                counts[clean_text(tag) or ""] += count
    return tuple(tag for tag, _ in counts.most_common(MAX_WORDS) if tag)


def class_tokens(datasets: str | None) -> tuple[str, ...]:
    """The captions that kohya gives to folders of images: ``class_tokens`` in ``ss_datasets``."""
    subsets = [subset for dataset in as_list(datasets) for subset in as_list(as_object(dataset).get("subsets"))]
    return tuple(word for subset in subsets for word in split_words(as_object(subset).get("class_tokens")))


def parse_a1111(entries: Mapping[str, Any]) -> Facts:
    """A1111's ``<name>.json``, as its own editor writes it."""
    notes = clean_text(entries.get("notes"), MAX_NOTES_LENGTH)
    return Facts(
        base_model=clean_text(entries.get("sd version")),
        trigger_words=split_words(entries.get("activation text")),
        notes=notes or clean_text(entries.get("description"), MAX_NOTES_LENGTH),
    )


def parse_lora_manager(entries: Mapping[str, Any]) -> Facts:
    """ComfyUI-Lora-Manager's ``<name>.metadata.json``, without the values that Loradex itself wrote into it."""
    written = as_object(as_object(entries.get(LORADEX_KEY)).get(WRITTEN_KEY))
    trained_words = split_words(as_object(entries.get("civitai")).get("trainedWords"))
    texts = {
        key: text
        for key, max_length in LORA_MANAGER_TEXTS.items()
        if (text := clean_text(entries.get(key), max_length)) != clean_text(written.get(key), max_length)
    }
    base_model = texts.get("base_model")
    return Facts(
        title=texts.get("model_name"),
        base_model=base_model if base_model != "Unknown" else None,
        trigger_words=without_written(trained_words, written.get(TRAINED_WORDS)),
        tags=without_written(split_words(entries.get("tags")), written.get("tags")),
        notes=texts.get("notes"),
    )


def without_written(words: tuple[str, ...], written: Any) -> tuple[str, ...]:
    """The words that Loradex did not write itself, so that its predictions are never read back as a person's words."""
    return tuple(word for word in words if word not in split_words(written))


def parse_stability_matrix(entries: Mapping[str, Any]) -> Facts:
    """StabilityMatrix' ``<name>.cm-info.json``."""
    return Facts(
        title=clean_text(entries.get("UserTitle")) or clean_text(entries.get("ModelName")),
        base_model=clean_text(entries.get("BaseModel")),
        trigger_words=split_words(entries.get("TrainedWords")),
        tags=split_words(entries.get("Tags")),
    )


def parse_civitai(entries: Mapping[str, Any]) -> Facts:
    """Civitai Helper's ``<name>.civitai.info``: one version of a model, as Civitai's API returns it."""
    model = as_object(entries.get("model"))
    return Facts(
        title=clean_text(model.get("name")),
        base_model=clean_text(entries.get("baseModel")),
        trigger_words=split_words(entries.get("trainedWords")),
        tags=split_words(model.get("tags")),
    )


LORA_MANAGER_TEXTS: Final = {  # their greatest lengths
    "model_name": MAX_TEXT_LENGTH,
    "base_model": MAX_TEXT_LENGTH,
    "notes": MAX_NOTES_LENGTH,
}
SIDE_CARS: Final[dict[str, Callable[[Mapping[str, Any]], Facts]]] = {  # those first that people are likeliest to edit
    ".json": parse_a1111,
    ".metadata.json": parse_lora_manager,
    ".cm-info.json": parse_stability_matrix,
    ".civitai.info": parse_civitai,
}


def read_json_object(path: Path) -> dict[str, Any] | None:
    """Read the JSON object of a side-car; None if it cannot be read."""
    try:
        with open_regular_file(path) as file:
            raw = file.read(MAX_SIDE_CAR_BYTES + 1)
        document = json.loads(raw.decode("utf-8-sig")) if len(raw) <= MAX_SIDE_CAR_BYTES else None
    except (FileMissing, OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def clean_text(value: Any, max_length: int = MAX_TEXT_LENGTH) -> str | None:
    """A text without spaces around it and cut to a bound; None if ``value`` is no text, empty, or kohya's word "None".

    Halves of surrogate pairs become question marks.
    """
    if not isinstance(value, str) or value.strip() in ("", "None"):
        return None
    return value.strip()[:max_length].encode(errors="replace").decode()


def split_words(value: Any) -> tuple[str, ...]:
    """The words of a list, or of a text with commas; of a list of objects, their names."""
    parts = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else []
    cleaned = (clean_text(part.get("name") if isinstance(part, dict) else part) for part in parts[: 4 * MAX_WORDS])
    return unique_words(word for word in cleaned if word)


def unique_words(words: Iterable[str]) -> tuple[str, ...]:
    """The first ``MAX_WORDS`` different words."""
    return tuple(dict.fromkeys(words))[:MAX_WORDS]


def parse_json(value: Any) -> Any:
    """The value of a JSON text, None if it is invalid; other values as they are."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, given as such or as text; empty for other values."""
    parsed = parse_json(value)
    return parsed if isinstance(parsed, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A JSON list, given as such or as text; empty for other values."""
    parsed = parse_json(value)
    return parsed if isinstance(parsed, list) else []
