"""``loradex inspect``: facts about files from their headers and side-cars; of the weights only alphas are read."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loradex.app.indexing.folder_scan import find_files
from loradex.app.reporting import ProgressCallback, refusal_list
from loradex.retrieval.errors import FileError, FileMissing
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import MAX_SIDE_CAR_BYTES


@dataclass(frozen=True, slots=True)
class InspectAnswer:
    """Facts about a set of files."""

    files: list[dict[str, Any]]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex inspect --json``."""
        return {"files": self.files, "refused": refusal_list(self.refused)}


def inspect_files(places: Sequence[Path], hashes: bool, progress: ProgressCallback) -> InspectAnswer:
    """Inspect files, and the ``.safetensors`` files below folders; a bad file is refused and does not stop the others.

    Args:
        places: files and folders.
        hashes: whether to hash the files, which reads all their bytes.
        progress: called after each file.
    """
    files, refused = expand_folders(places)
    inspected = []
    for number, path in enumerate(files, 1):
        try:
            inspected.append(inspect_lora(LoraFile.open(path), hashes))
        except FileError as error:
            refused[str(path)] = str(error)
        progress(number, len(files), path.name)
    return InspectAnswer(inspected, refused)


def expand_folders(places: Sequence[Path]) -> tuple[list[Path], dict[str, str]]:
    """Replace each folder by the ``.safetensors`` files below it; returns the files, and why a folder has none."""
    files: list[Path] = []
    refused: dict[str, str] = {}
    for place in places:
        try:
            found, unreadable = find_files([place]) if is_folder(place) else ([place], {})
            files += found
            refused |= unreadable
        except FileMissing as error:
            refused[str(place)] = str(error)
    return files, refused


def is_folder(place: Path) -> bool:
    """Whether a place is a folder; False if it cannot be accessed: opening it as a file then gives the reason."""
    try:
        return place.is_dir()
    except OSError:
        return False


def inspect_lora(lora: LoraFile, hashes: bool) -> dict[str, Any]:
    """The facts about one file, as JSON."""
    facts = lora.facts
    broken = [
        f"side-car {name} is no JSON object of up to {MAX_SIDE_CAR_BYTES >> 20} MiB and is not read"
        for name in facts.broken
    ]
    document: dict[str, Any] = {
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
        "problems": lora.problems + broken,
    }
    return document | ({"id": lora.id, "data_hash": lora.data_hash, "sha256": lora.sha256} if hashes else {})
