"""Model cards: the fields of the Hugging Face hub at the head of the ``README.md`` beside a LoRA."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from huggingface_hub.repocard import REGEX_YAML_BLOCK

from loradex.app.describe.ownership import plan_changes
from loradex.app.describe.predictions import (
    Words,
    certain_family,
    likely_labels,
    predictions_document,
    read_or_written,
    trigger_words,
)
from loradex.app.describe.text_edit import PlannedEdit, read_text, replace_surrogates
from loradex.app.describe.yaml_block import YamlBlock
from loradex.app.indexing.file_reader import display_name
from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import LORADEX_KEY
from loradex.retrieval.lora.weights_folder import is_found_name
from loradex.retrieval.words import Word

CARD_NAME: Final = "README.md"
BOM: Final = "\ufeff"
MARKDOWN_SPECIAL: Final = frozenset("\\`*_{}[]<>()#+-.!|~$&")
# The hub's names of base models, for the families that have one.
BASE_MODELS: Final = {
    "sd1": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-refiner": "stabilityai/stable-diffusion-xl-refiner-1.0",
    "flux1": "black-forest-labs/FLUX.1-dev",
    "qwen-image": "Qwen/Qwen-Image",
    "lumina2": "Alpha-VLLM/Lumina-Image-2.0",
}
VIDEO_FAMILIES: Final = ("wan", "hunyuan-video", "hunyuan-video-1.5", "ltx-video", "ltx-2", "cogvideox", "mochi")


def plan_card(lora: LoraFile, answer: LabelAnswer, space: str | None = None, words: Words = None) -> PlannedEdit:
    """Plan the edit of the card in a file's folder; nothing is written.

    ``words`` are those in the file's weights; if they could not be read, those stay that were written before.

    Raises:
        DescriptionError: there are other LoRAs in the folder, or the card exists and cannot be edited.
    """
    target = lora.path.with_name(CARD_NAME)
    try:
        count = sum(is_found_name(path.name) for path in lora.path.absolute().parent.iterdir())
    except OSError as error:
        raise DescriptionError(
            f"{target.parent}: cannot be listed: {error.strerror}; check the access rights"
        ) from None
    if count > 1:
        raise DescriptionError(
            f"{target}: expected a folder with one LoRA, found {count}; a card describes one, so write side-cars (--as side-car)"
        )
    return plan_edit(target, read_text(target), lora, answer, space, words)


def plan_edit(
    target: Path,
    before: str | None,
    lora: LoraFile,
    answer: LabelAnswer,
    space: str | None = None,
    words: Words = None,
) -> PlannedEdit:
    """Plan the edit of a card with the text ``before``; None for a new card.

    Raises:
        DescriptionError: the card cannot be edited.
    """
    try:
        head, block, tail = split_card(new_body(lora) if before is None else before)
        in_weights = read_or_written(words, block.comparable_fields([LORADEX_KEY]))
        desired = desired_fields(lora, answer, in_weights)
        fields = block.comparable_fields([*desired, LORADEX_KEY])
        changes = plan_changes(fields, desired, predictions_document(answer, space, in_weights))
        return PlannedEdit(target, before, head + block.with_changes(changes) + tail, changes)
    except DescriptionError as error:
        raise DescriptionError(f"{target}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise DescriptionError(
            f"{target}: expected YAML between two lines of ---, found none that can be changed: {error}; mend it by hand"
        ) from None


def split_card(text: str) -> tuple[str, YamlBlock, str]:
    """Split a card into the text before the YAML block, the block, and the text after it.

    A card without a block gets an empty one.

    Raises:
        ValueError: the block cannot be parsed.
    """
    start = len(BOM) if text.startswith(BOM) else 0
    line_break = "\r\n" if "\r\n" in text else "\n"
    match = REGEX_YAML_BLOCK.match(text[start:])
    if match:
        block_start, block_end = start + match.start(2), start + match.end(2)
        return text[:block_start], YamlBlock.parse(text[block_start:block_end], line_break), text[block_end:]
    if text[start:].lstrip().startswith("---"):
        raise ValueError("it has no end")
    return (
        text[:start] + f"---{line_break}",
        YamlBlock.parse("", line_break),
        f"{line_break}---{line_break}{line_break}{text[start:]}",
    )


def desired_fields(lora: LoraFile, answer: LabelAnswer, words: Sequence[Word]) -> dict[str, Any]:
    """Every field that Loradex fills, with its value; None where it has none."""
    family = certain_family(lora)
    return {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video" if family in VIDEO_FAMILIES else "text-to-image",
        "tags": ["lora", *(label for label in likely_labels(answer) if label != "lora")],
        "base_model": BASE_MODELS.get(family),
        "instance_prompt": ", ".join(trigger_words(lora, words)) or None,
    }


def new_body(lora: LoraFile) -> str:
    """The body of a new card. It is never updated, so it says only what stays true."""
    name = " ".join(replace_surrogates(lora.facts.title or display_name(lora.path)).split())
    escaped = "".join("\\" * (letter in MARKDOWN_SPECIAL) + letter for letter in name if letter.isprintable())
    return f"# {escaped}\n\nThe values above under `{LORADEX_KEY}` were read from the weights by Loradex and may be wrong.\n"
