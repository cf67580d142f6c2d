"""What people and trainers wrote about a LoRA: header metadata and side-cars, which are read and never written.

None of it is checked against the weights. Sources: kohya ``library/train_util.py`` (ss_*), Stability AI's ModelSpec (modelspec.*),
OneTrainer (ot_*), ai-toolkit (software), and the side-cars of A1111, ComfyUI-Lora-Manager, StabilityMatrix and Civitai Helper.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora.header import open_regular

LARGEST_SIDE_CAR: Final = 4 * 2**20  # bytes
LONGEST: Final = 200  # characters of a word or title
LONGEST_NOTES: Final = 2000
MOST_WORDS: Final = 50
OWN: Final = "loradex"  # the key of a side-car under which stands what Loradex itself says
WROTE: Final = "wrote"  # beneath it, the values that it wrote into other fields
TRAINED_WORDS: Final = "civitai.trainedWords"  # the field within a field, as ``WROTE`` names it


@dataclass(frozen=True, slots=True)
class Facts:
    """What was written about a LoRA.

    Attributes:
        base_model: in the words of its source.
        tags: of the training captions the most frequent first.
        sources: the files that said something, ``header`` for the LoRA itself.
        broken: side-cars that could not be read.
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
        """These facts, and those of ``other`` where these say nothing."""
        return Facts(
            self.title or other.title,
            self.base_model or other.base_model,
            self.trainer or other.trainer,
            unique((*self.trigger_words, *other.trigger_words)),
            unique((*self.tags, *other.tags)),
            self.notes or other.notes,
            (*self.sources, *other.sources),
            (*self.broken, *other.broken),
        )


def facts_of(path: Path, metadata: Mapping[str, str]) -> Facts:
    """All that is written about a file: side-cars, which people edit, go before the header."""
    facts = Facts()
    for ending, read in SIDE_CARS.items():
        side_car = path.with_name(path.stem + ending)
        if side_car != path and is_there(side_car):
            entries = read_json_object(side_car)
            facts = facts.merged(
                Facts(broken=(side_car.name,)) if entries is None else said(read(entries), side_car.name)
            )
    return facts.merged(header_facts(metadata))


def header_facts(metadata: Mapping[str, str]) -> Facts:
    """All that the header of a file says."""
    return said(from_header(metadata), "header")


def is_there(path: Path) -> bool:
    """Whether there is such a file; none has a name that is too long for the file system."""
    try:
        return path.is_file()
    except OSError:
        return False


def said(facts: Facts, source: str) -> Facts:
    """The facts with their source, where there are any."""
    return (
        Facts(facts.title, facts.base_model, facts.trainer, facts.trigger_words, facts.tags, facts.notes, (source,))
        if facts != Facts()
        else facts
    )


def from_header(metadata: Mapping[str, str]) -> Facts:
    """What the trainer wrote into the file."""
    triggers = (*words(metadata.get("modelspec.trigger_phrase")), *class_tokens(metadata.get("ss_datasets")))
    return Facts(
        title=text(metadata.get("modelspec.title")) or text(metadata.get("ss_output_name")),
        base_model=next(
            filter(
                None,
                (
                    text(metadata.get(key))
                    for key in ("ss_base_model_version", "modelspec.architecture", "ss_sd_model_name")
                ),
            ),
            None,
        ),
        trainer=trainer_of(metadata),
        trigger_words=unique(triggers),
        tags=unique((*frequent_tags(metadata.get("ss_tag_frequency")), *words(metadata.get("modelspec.tags")))),
        notes=text(metadata.get("modelspec.description"), LONGEST_NOTES)
        or text(metadata.get("ss_training_comment"), LONGEST_NOTES),
    )


def trainer_of(metadata: Mapping[str, str]) -> str | None:
    """The program that made the file, where its metadata show it."""
    module = metadata.get("ss_network_module", "")
    if "ot_branch" in metadata or "ot_revision" in metadata:
        return "OneTrainer"
    if name := text(as_object(metadata.get("software")).get("name")):
        return name
    if module.startswith("lycoris"):
        return "kohya with LyCORIS"
    if module or "ss_sd_scripts_commit_hash" in metadata:
        return "kohya"
    if "unet:0:rank" in metadata:
        return "cloneofsimo"
    return "PEFT" if "lora_adapter_metadata" in metadata else None


def frequent_tags(frequency: str | None) -> tuple[str, ...]:
    """The tags of kohya's ``ss_tag_frequency``, folder -> tag -> count, the most frequent first."""
    counts: Counter[str] = Counter()
    for folder in as_object(frequency).values():
        for tag, count in as_object(folder).items():
            if type(count) is int and 0 < count < 2**53:
                counts[text(tag) or ""] += count
    return tuple(tag for tag, _ in counts.most_common(MOST_WORDS) if tag)


def class_tokens(datasets: str | None) -> tuple[str, ...]:
    """The captions that kohya gives to whole folders: ``class_tokens`` of ``ss_datasets``."""
    subsets = [subset for dataset in as_list(datasets) for subset in as_list(as_object(dataset).get("subsets"))]
    return tuple(word for subset in subsets for word in words(as_object(subset).get("class_tokens")))


def from_a1111(entries: Mapping[str, Any]) -> Facts:
    """A1111's ``<name>.json``, as its own editor writes it."""
    notes = text(entries.get("notes"), LONGEST_NOTES) or text(entries.get("description"), LONGEST_NOTES)
    return Facts(
        base_model=text(entries.get("sd version")), trigger_words=words(entries.get("activation text")), notes=notes
    )


def from_lora_manager(entries: Mapping[str, Any]) -> Facts:
    """ComfyUI-Lora-Manager's ``<name>.metadata.json``, without what Loradex itself wrote into it."""
    own = as_object(as_object(entries.get(OWN)).get(WROTE))
    trained = words(as_object(entries.get("civitai")).get("trainedWords"))
    said = {
        key: found
        for key, longest in LORA_MANAGER.items()
        if (found := text(entries.get(key), longest)) != text(own.get(key), longest)
    }
    base_model = said.get("base_model") if said.get("base_model") != "Unknown" else None
    left = (without(trained, own.get(TRAINED_WORDS)), without(words(entries.get("tags")), own.get("tags")))
    return Facts(said.get("model_name"), base_model, None, *left, said.get("notes"))


def without(said: tuple[str, ...], own: Any) -> tuple[str, ...]:
    """The words that are none of Loradex's own, so that its guesses never come back as a person's."""
    return tuple(word for word in said if word not in words(own))


def from_stability_matrix(entries: Mapping[str, Any]) -> Facts:
    """StabilityMatrix' ``<name>.cm-info.json``."""
    title = text(entries.get("UserTitle")) or text(entries.get("ModelName"))
    return Facts(
        title, text(entries.get("BaseModel")), None, words(entries.get("TrainedWords")), words(entries.get("Tags"))
    )


def from_civitai(entries: Mapping[str, Any]) -> Facts:
    """Civitai Helper's ``<name>.civitai.info``: one version of a model, as Civitai's API gives it."""
    model = as_object(entries.get("model"))
    return Facts(
        text(model.get("name")),
        text(entries.get("baseModel")),
        None,
        words(entries.get("trainedWords")),
        words(model.get("tags")),
    )


LORA_MANAGER: Final = {"model_name": LONGEST, "base_model": LONGEST, "notes": LONGEST_NOTES}
# by who is likelier to have been edited by a person
SIDE_CARS: Final[dict[str, Callable[[Mapping[str, Any]], Facts]]] = {
    ".json": from_a1111,
    ".metadata.json": from_lora_manager,
    ".cm-info.json": from_stability_matrix,
    ".civitai.info": from_civitai,
}


def read_json_object(path: Path) -> dict[str, Any] | None:
    """The JSON object of a side-car, or None where it cannot be read."""
    try:
        with open_regular(path) as file:
            raw = file.read(LARGEST_SIDE_CAR + 1)
        found = json.loads(raw.decode("utf-8-sig")) if len(raw) <= LARGEST_SIDE_CAR else None
    except (FileMissing, OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text(value: Any, longest: int = LONGEST) -> str | None:
    """A text cut to a bound, with a question mark for half of a surrogate pair, or None where it is none or empty; kohya writes None as a word."""
    if not isinstance(value, str) or value.strip() in ("", "None"):
        return None
    return value.strip()[:longest].encode(errors="replace").decode()


def words(value: Any) -> tuple[str, ...]:
    """The words of a list, or of a text with commas."""
    parts = value if isinstance(value, list) else value.split(",") if isinstance(value, str) else []
    return unique(
        found
        for part in parts[: 4 * MOST_WORDS]
        for found in [text(part.get("name") if isinstance(part, dict) else part)]
        if found
    )


def unique(found: Iterable[str]) -> tuple[str, ...]:
    """The first words, each once."""
    return tuple(dict.fromkeys(found))[:MOST_WORDS]


def parsed(value: Any) -> Any:
    """What a JSON text holds, or the value itself."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object, also one written as text; empty where it is none."""
    found = parsed(value)
    return found if isinstance(found, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A JSON list, also one written as text; empty where it is none."""
    found = parsed(value)
    return found if isinstance(found, list) else []
