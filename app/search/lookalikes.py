"""Look-alikes: LoRAs of any family with the same update, or made from one another."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final, Self

from loradex.app.indexing.file_reader import display_name
from loradex.app.indexing.folder_scan import find_files
from loradex.app.reporting import ProgressCallback, refusal_list
from loradex.index import ModelMissing, open_zoo
from loradex.retrieval.errors import FileError
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import SAME_COSINE, FingerprintIndex, Lookalike, Merge
from loradex.retrieval.lora import LoraFile

IDENTICAL: Final = "same weights"  # the relation of files with equal weights


@dataclass(frozen=True, slots=True)
class LookalikeHit:
    """A LoRA that is like another.

    Attributes:
        path: a file of it; None if no file is known.
        relation: how it is like the other, in words.
        cosine: of both updates.
        strength: the norm of its update over that of the other's.
    """

    id: str
    name: str
    path: str | None
    relation: str
    cosine: float
    strength: float


@dataclass(frozen=True, slots=True)
class WeightedLora:
    """A LoRA with its weight in a merge, or the first of a related pair."""

    id: str
    name: str
    path: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class MergeAnswer:
    """What a LoRA was merged from; ``explained`` is the share of its energy that the parts explain."""

    name: str
    path: str | None
    parts: list[WeightedLora]
    explained: float


@dataclass(frozen=True, slots=True)
class SimilarAnswer:
    """The look-alikes of one file, most alike first, among ``compared`` LoRAs."""

    file: str
    family: str
    compared: int
    hits: list[LookalikeHit]
    merge: MergeAnswer | None
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex similar --json``."""
        return asdict(self) | {"refused": refusal_list(self.refused)}


@dataclass(frozen=True, slots=True)
class DuplicatesAnswer:
    """All look-alikes of a zoo or of some folders.

    Attributes:
        compared: the number of LoRAs.
        groups: LoRAs with the same update; relation, cosine and strength compare each with the first of its group.
        related: pairs of which one was made from the other, or both from a third.
        merges: LoRAs that were merged from others.
        refused: the reason for each file that could not be read.
    """

    compared: int
    groups: list[list[LookalikeHit]]
    related: list[tuple[WeightedLora, LookalikeHit]]
    merges: list[MergeAnswer]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex duplicates --json``."""
        return {
            "compared": self.compared,
            "groups": [[asdict(hit) for hit in group] for group in self.groups],
            "related": [
                {"id": first.id, "name": first.name, "path": first.path, "other": asdict(other)}
                for first, other in self.related
            ],
            "merges": [asdict(merge) for merge in self.merges],
            "refused": refusal_list(self.refused),
        }


@dataclass(frozen=True, slots=True)
class LibraryEntry:
    """A LoRA, and the files with exactly its weights."""

    id: str
    name: str
    paths: tuple[str, ...]
    fingerprint: Fingerprint


class Library:
    """The LoRAs of a zoo or of some folders with their fingerprints, to be compared with one another."""

    def __init__(self, entries: Sequence[LibraryEntry], refused: dict[str, str]) -> None:
        """Index the LoRAs; ``refused`` has the reason for each file that could not be read."""
        self.entries, self.refused = list(entries), refused
        self.index = FingerprintIndex([entry.fingerprint for entry in entries])

    @classmethod
    def from_zoo(cls, folder: Path, progress: ProgressCallback) -> Self:
        """Load the models of a zoo; the files of those without a stored fingerprint are read.

        Raises:
            ZooError: the zoo cannot be read.
        """
        entries, refused = [], {}
        with open_zoo(folder, read_only=True) as zoo:
            fingerprints, files = zoo.fingerprints(), defaultdict(list)
            for file in zoo.known_files().values():
                files[file.model_id].append(file.path)
            total = len(zoo)
            for number, model in enumerate(zoo.models(), 1):
                paths = tuple(files[model.id]) or ((str((folder / model.path).resolve()),) if model.path else ())
                try:
                    fingerprint = (
                        Fingerprint.from_bytes(fingerprints[model.id])
                        if model.id in fingerprints
                        else compute_fingerprint(LoraFile.open(paths[0] if paths else model.name))
                    )
                    entries.append(LibraryEntry(model.id, model.name, paths, fingerprint))
                except FileError as error:
                    refused[model.name] = str(error)
                progress(number, total, model.name)
        return cls(entries, refused)

    @classmethod
    def from_folders(cls, folders: Sequence[Path], progress: ProgressCallback) -> Self:
        """Read all LoRAs below some folders.

        Raises:
            FileMissing: the folders hold no file.
        """
        entries: dict[str, LibraryEntry] = {}
        files, refused = find_files(folders)
        for number, path in enumerate(files, 1):
            try:
                lora = LoraFile.open(path)
                if lora.id not in entries:
                    entries[lora.id] = LibraryEntry(lora.id, display_name(path), (), compute_fingerprint(lora))
                entries[lora.id] = replace(entries[lora.id], paths=(*entries[lora.id].paths, str(path)))
            except FileError as error:
                refused[str(path)] = str(error)
            progress(number, len(files), path.name)
        return cls(list(entries.values()), refused)

    def similar(self, file: Path, k: int) -> SimilarAnswer:
        """Find the ``k`` nearest look-alikes of a file, other than itself.

        Raises:
            FileError: the file cannot be read.
        """
        lora = LoraFile.open(file)
        hits, merge = self.find_lookalikes(compute_fingerprint(lora), lora.id, lora.path.resolve())
        answer = self.merge_answer(display_name(lora.path), str(lora.path), merge) if merge else None
        return SimilarAnswer(str(lora.path), lora.family, len(self.entries), hits[:k], answer, self.refused)

    def entry(self, id: str) -> LibraryEntry:
        """Return the LoRA with an id.

        Raises:
            ModelMissing: there is none, or it could not be read.
        """
        for entry in self.entries:
            if entry.id == id:
                return entry
        raise ModelMissing(
            f"look-alikes: expected a model {id!r} with a fingerprint, found none; list the zoo's models, or index its file again"
        )

    def find_lookalikes(
        self, fingerprint: Fingerprint, id: str, itself: Path | None
    ) -> tuple[list[LookalikeHit], Merge | None]:
        """Find the look-alikes of a fingerprint, most alike first, and what it was merged from.

        Args:
            fingerprint: of the LoRA.
            id: of the LoRA; its other files are look-alikes with the relation ``IDENTICAL``.
            itself: the file of the LoRA, which is left out; None if it has none.
        """
        hits, own_index = [], -1
        for lookalike in self.index.find(fingerprint):
            entry = self.entries[lookalike.index]
            is_same_id = entry.id == id
            if is_same_id:
                own_index = lookalike.index
            other_paths = [path for path in entry.paths if Path(path).resolve() != itself]
            if other_paths or not entry.paths and (itself or not is_same_id):
                path = other_paths[0] if other_paths else None
                hits.append(self.lookalike_hit(lookalike, IDENTICAL if is_same_id else None, path))
        return hits, self.index.find_merge(fingerprint, leave_out=own_index)

    def duplicates(self) -> DuplicatesAnswer:
        """Find all groups of LoRAs with one update, all pairs of related ones, and what was merged from what."""
        same_update: dict[int, list[Lookalike]] = defaultdict(list)  # by the first LoRA of the group
        grouped: set[int] = set()  # the others of the groups
        related = []
        for first, other in self.index.pairs():
            if other.cosine < SAME_COSINE:
                related.append((first, other))
            elif first not in grouped and other.index not in grouped:
                same_update[first].append(other)
                grouped.add(other.index)
        groups = [
            group
            for index in range(len(self.entries))
            if index not in grouped and (group := self.group(index, same_update))
        ]
        pairs = [
            (self.weighted_lora(first), self.lookalike_hit(other))
            for first, other in related
            if grouped.isdisjoint((first, other.index))
        ]
        in_pairs = sorted({index for first, other in related for index in (first, other.index)} - grouped)
        merges = []
        for index in in_pairs:
            merge = self.index.find_merge(self.entries[index].fingerprint, leave_out=index)
            if merge:
                merges.append(self.merge_answer(self.entries[index].name, self.first_path(index), merge))
        return DuplicatesAnswer(len(self.entries), groups, pairs, merges, self.refused)

    def group(self, first: int, same_update: Mapping[int, Sequence[Lookalike]]) -> list[LookalikeHit]:
        """The files of a LoRA, then those of the LoRAs with the same update; empty if there is only one file."""
        entry = self.entries[first]
        hits = [LookalikeHit(entry.id, entry.name, path, IDENTICAL, 1.0, 1.0) for path in entry.paths or (None,)]
        hits += [
            self.lookalike_hit(lookalike, None, path)
            for lookalike in same_update.get(first, ())
            for path in self.entries[lookalike.index].paths or (None,)
        ]
        return hits if len(hits) > 1 else []

    def lookalike_hit(self, lookalike: Lookalike, relation: str | None = None, path: str | None = None) -> LookalikeHit:
        """A look-alike with its name and, by default, its first file."""
        entry = self.entries[lookalike.index]
        return LookalikeHit(
            entry.id,
            entry.name,
            path or self.first_path(lookalike.index),
            relation or str(lookalike.relation),
            lookalike.cosine,
            lookalike.strength,
        )

    def merge_answer(self, name: str, path: str | None, merge: Merge) -> MergeAnswer:
        """The merge that a LoRA is, with the names of its parts."""
        parts = [self.weighted_lora(index, weight) for index, weight in merge.weights.items()]
        return MergeAnswer(name, path, parts, merge.explained)

    def weighted_lora(self, index: int, weight: float = 1.0) -> WeightedLora:
        """A LoRA with its name and its first file."""
        return WeightedLora(self.entries[index].id, self.entries[index].name, self.first_path(index), weight)

    def first_path(self, index: int) -> str | None:
        """The first file of a LoRA, or None."""
        return next(iter(self.entries[index].paths), None)


def compute_fingerprint(lora: LoraFile) -> Fingerprint:
    """Compute the fingerprint of a file; the file is read layer by layer."""
    return Fingerprint.of(lora.iter_updates())
