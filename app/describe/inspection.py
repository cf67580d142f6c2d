"""``loradex inspect``: what files say of themselves, from their headers and side-cars; only alphas are read besides."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradex.app.indexing.folder_scan import find_files
from loradex.app.reporting import Progress, reasons
from loradex.retrieval.errors import FileError, FileMissing
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import LARGEST_SIDE_CAR


@dataclass(frozen=True, slots=True)
class InspectAnswer:
    """What some files say of themselves."""

    files: list[dict[str, Any]]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex inspect --json``."""
        return {"files": self.files, "refused": reasons(self.refused)}


def inspect_files(places: Sequence[Path], hashes: bool, progress: Progress) -> InspectAnswer:
    """Facts of each file, and of each ``.safetensors`` file below each folder; a bad one never stops the others.

    Args:
        places: files and folders.
        hashes: whether to read the files whole, for their hashes.
        progress: told of every file.
    """
    files, refused = files_of(places)
    found = []
    for number, path in enumerate(files, 1):
        try:
            found.append(describe(LoraFile.open(path), hashes))
        except FileError as error:
            refused[str(path)] = str(error)
        progress(number, len(files), path.name)
    return InspectAnswer(found, refused)


def files_of(places: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """The named files, and the ``.safetensors`` files below each named folder; and the folders that hold none, with the reason."""
    files: list[Path] = []
    refused: dict[str, str] = {}
    for place in places:
        try:
            files += find_files([place]) if is_folder(place) else [place]
        except FileMissing as error:
            refused[str(place)] = str(error)
    return files, refused


def is_folder(place: Path) -> bool:
    """Whether it is one; what cannot be looked at is none, and is refused when it is opened."""
    try:
        return place.is_dir()
    except OSError:
        return False


def describe(lora: LoraFile, hashes: bool) -> dict[str, Any]:
    """The facts of one file, as JSON has them."""
    facts = lora.facts
    described: dict[str, Any] = {
        "file": str(lora.path),
        "bytes": lora.header.size,
        "format": str(lora.format),
        "family": lora.family,
        "families": lora.families,
        "layers": len(lora.layers),
        "ranks": lora.ranks,
        "scales": lora.scales,
        "trainer": facts.trainer,
        "title": facts.title,
        "base_model": facts.base_model,
        "trigger_words": list(facts.trigger_words),
        "tags": list(facts.tags),
        "notes": facts.notes,
        "sources": list(facts.sources),
        "problems": lora.problems
        + [
            f"side-car {name} is no JSON object of up to {LARGEST_SIDE_CAR >> 20} MiB and is not read"
            for name in facts.broken
        ],
    }
    return described | ({"id": lora.id, "data_hash": lora.data_hash, "sha256": lora.sha256} if hashes else {})
