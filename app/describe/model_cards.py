"""Model cards: what Loradex found, as fields of the Hugging Face hub at the head of the ``README.md`` beside a LoRA."""

from pathlib import Path
from typing import Any, Final

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from loradex.app.describe.ownership import changes_of
from loradex.app.describe.predictions import certain_family, likely_labels, said_of
from loradex.app.describe.text_edit import Plan, clean, read_text
from loradex.app.describe.yaml_block import Block
from loradex.app.indexing.file_reader import name_of
from loradex.app.indexing.folder_scan import ENDING
from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import OWN

NAME: Final = "README.md"
BOM: Final = "\ufeff"
SPECIAL: Final = frozenset("\\`*_{}[]<>()#+-.!|~$&")  # of Markdown
# the hub's names of base models, for the families that have one
BASE_MODELS: Final = {
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-refiner": "stabilityai/stable-diffusion-xl-refiner-1.0",
    "flux1": "black-forest-labs/FLUX.1-dev",
    "qwen-image": "Qwen/Qwen-Image",
    "lumina2": "Alpha-VLLM/Lumina-Image-2.0",
}
FILMS: Final = ("wan", "hunyuan-video", "ltx-video")  # families that draw them


def card_of(lora: LoraFile, answer: LabelAnswer, space: str | None = None) -> str:
    """The text of a fresh card."""
    return planned(Path(NAME), None, lora, answer, space).after


def plan_card(lora: LoraFile, answer: LabelAnswer, space: str | None = None) -> Plan:
    """What the card in a file's folder is to say, and what changes by that; nothing is written.

    Raises:
        DescriptionError: other LoRAs lie in the folder, or the card is there and is none that can be changed.
    """
    target = lora.path.with_name(NAME)
    try:
        count = sum(
            path.name.lower().endswith(ENDING) and not path.name.startswith(".")
            for path in lora.path.absolute().parent.iterdir()
        )
    except OSError as error:
        raise DescriptionError(
            f"{target.parent}: cannot be looked through: {error.strerror}; check the access rights"
        ) from None
    if count > 1:
        raise DescriptionError(
            f"{target}: expected a folder with one LoRA, found {count}; a card speaks for one, so write side-cars (--as side-car)"
        )
    return planned(target, read_text(target), lora, answer, space)


def planned(target: Path, before: str | None, lora: LoraFile, answer: LabelAnswer, space: str | None) -> Plan:
    """The change of a card.

    Raises:
        DescriptionError: it is none that can be changed.
    """
    try:
        head, block, tail = split(body_of(lora) if before is None else before)
        wanted = fields_of(lora, answer)
        changes = changes_of(block.seen([*wanted, OWN]), wanted, said_of(answer, space))
        return Plan(target, before, head + block.changed(changes) + tail, changes)
    except DescriptionError as error:
        raise DescriptionError(f"{target}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DescriptionError(
            f"{target}: expected YAML between two lines of ---, found none that can be changed: {error}; mend it by hand"
        ) from None


def split(text: str) -> tuple[str, Block, str]:
    """What stands before the YAML block, the block, and what follows; an empty one is put before a text that has none.

    Raises:
        ValueError: it is no block that can be read.
    """
    start = len(BOM) if text.startswith(BOM) else 0
    line_break = "\r\n" if "\r\n" in text else "\n"
    found = REGEX_YAML_BLOCK.match(text[start:])
    if found:
        begin, end = start + found.start(2), start + found.end(2)
        return text[:begin], Block.read(text[begin:end], line_break), text[end:]
    if text[start:].lstrip().startswith("---"):
        raise ValueError("it has no end")
    return (
        text[:start] + f"---{line_break}",
        Block.read("", line_break),
        f"{line_break}---{line_break}{line_break}{text[start:]}",
    )


def fields_of(lora: LoraFile, answer: LabelAnswer) -> dict[str, Any]:
    """Every field that Loradex fills; None where it has nothing to say."""
    family = certain_family(lora)
    return {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video" if family in FILMS else "text-to-image",
        "tags": ["lora", *(label for label in likely_labels(answer) if label != "lora")],
        "base_model": BASE_MODELS.get(family),
        "instance_prompt": ", ".join(lora.facts.trigger_words) or None,
    }


def body_of(lora: LoraFile) -> str:
    """The first text of a card, which nothing changes later, so that it says nothing that may."""
    name = " ".join(clean(lora.facts.title or name_of(lora.path)).split())
    heading = "".join("\\" * (letter in SPECIAL) + letter for letter in name if letter.isprintable())
    return f"# {heading}\n\nWhat stands above under `{OWN}` was read from the weights by Loradex, and may be wrong.\n"
