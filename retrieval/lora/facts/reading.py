"""All facts about a file, from the sources in the order in which they count."""

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.lora.facts.metadata import parse_metadata, words_of_folders
from loradex.retrieval.lora.facts.model import Facts
from loradex.retrieval.lora.facts.side_cars import (
    CIVITAI,
    STABILITY_MATRIX,
    parse_edited,
    parse_lora_manager,
    parse_rgthree,
    parse_text,
    read_json_object,
    read_text,
)


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of side-car.

    Attributes:
        ending: what follows the name of the file without its ending, or the whole name if it begins with ``.*``.
        parse: the facts of its JSON object, or of its text.
        is_text: whether it is a plain text.
    """

    ending: str
    parse: Callable[[Any], Facts]
    is_text: bool = False

    def path(self, file: str) -> str:
        """Path of the side-car of a file."""
        if self.ending.startswith(".*"):
            return file + self.ending[2:]
        return os.path.splitext(file)[0] + self.ending  # noqa: PTH122

    def read(self, path: Path) -> Facts:
        """The facts of a side-car, with its name."""
        if self.is_text:
            return self.parse(read_text(path)).from_source(path.name)
        document = read_json_object(path)
        return Facts(broken=(path.name,)) if document is None else self.parse(document).from_source(path.name)


# Whose words count first: of titles, base models and notes the first is taken, and words stand in this order. What a
# person wrote by hand goes before what a manager copied from a site, that before what a trainer wrote into the header
# (``parse_metadata``). A folder's name is a guess, for files of which nothing else names a word.
SIDE_CARS: Final = (
    Source(".json", parse_edited),  # by hand: A1111's editor, and other programs' JSON
    Source(".swarm.json", parse_edited),  # by hand: SwarmUI's editor
    Source(".txt", parse_text, is_text=True),  # by hand: trigger words, or a description
    Source(".metadata.json", parse_lora_manager),  # by hand or from Civitai: ComfyUI-Lora-Manager
    Source(".*.rgthree-info.json", parse_rgthree),  # by hand, from Civitai or the header: rgthree-comfy
    Source(".rgthree-info.json", parse_rgthree),
    Source(".cm-info.json", STABILITY_MATRIX.read),  # from Civitai, but for the title: StabilityMatrix
    Source(".civitai.info", CIVITAI.read),  # from Civitai: Civitai Helper
    Source(".description.txt", lambda text: Facts(notes=parse_text(text).notes), is_text=True),  # A1111's older notes
)


def read_facts(path: Path, metadata: Mapping[str, str], guess: bool = True) -> Facts:
    """Read all that is written about a file, in the order of ``SIDE_CARS`` and then its header.

    Args:
        path: of the file.
        metadata: of its header.
        guess: whether the names of folders are taken as trigger words if nothing states any.
    """
    facts, file = Facts(), os.fspath(path)
    for source in SIDE_CARS:
        side_car = source.path(file)
        if side_car != file and is_regular(side_car):
            facts = facts.merged(source.read(Path(side_car)))
    return facts.merged(header_facts(metadata, guess=guess and not facts.trigger_words))


def header_facts(metadata: Mapping[str, str], guess: bool = True) -> Facts:
    """The facts that stand in the header of a file, with their source.

    Args:
        metadata: of the header.
        guess: whether the names of folders are taken as trigger words if it states none.
    """
    facts = parse_metadata(metadata)
    if guess and not facts.trigger_words:
        facts = replace(facts, trigger_words=words_of_folders(metadata))
    return facts.from_source("header")


def is_regular(path: str) -> bool:
    """Whether there is such a file; False also for names that are too long for the file system."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - faster than a Path, and asked of every file
    except (OSError, ValueError):
        return False
