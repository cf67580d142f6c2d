"""``loradex similar`` and ``loradex duplicates``: LoRAs that hold the same update, or one made from another, of any family."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from loradex.app.indexing.file_reader import name_of
from loradex.app.indexing.folder_scan import find_files
from loradex.app.reporting import Progress, reasons
from loradex.index import ModelMissing, open_zoo
from loradex.retrieval.errors import FileError
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import SAME, Likeness, Lookalikes, Merge
from loradex.retrieval.lora import LoraFile

IDENTICAL: Final = "same weights"


@dataclass(frozen=True, slots=True)
class Like:
    """A LoRA that is like another; ``strength`` is its norm over the other's."""

    id: str
    name: str
    path: str | None
    relation: str
    cosine: float
    strength: float


@dataclass(frozen=True, slots=True)
class Part:
    """A LoRA beside another, or with its weight in a merge."""

    id: str
    name: str
    path: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class MergeAnswer:
    """What a LoRA was merged from; ``explained`` is the share of its energy that the parts make up."""

    name: str
    path: str | None
    parts: list[Part]
    explained: float


@dataclass(frozen=True, slots=True)
class SimilarAnswer:
    """The look-alikes of one file, most like first."""

    file: str
    family: str
    compared: int
    hits: list[Like]
    merge: MergeAnswer | None
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex similar --json``."""
        return asdict(self) | {"refused": reasons(self.refused)}


@dataclass(frozen=True, slots=True)
class DuplicatesAnswer:
    """All look-alikes of a zoo or of some folders.

    Attributes:
        groups: LoRAs with one update; the first is what the others are compared with.
        related: pairs that share much.
    """

    compared: int
    groups: list[list[Like]]
    related: list[tuple[Part, Like]]
    merges: list[MergeAnswer]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex duplicates --json``."""
        return {
            "compared": self.compared,
            "groups": [[asdict(like) for like in group] for group in self.groups],
            "related": [
                {"id": one.id, "name": one.name, "path": one.path, "other": asdict(other)}
                for one, other in self.related
            ],
            "merges": [asdict(merge) for merge in self.merges],
            "refused": reasons(self.refused),
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """One LoRA, and the files that hold exactly its weights."""

    id: str
    name: str
    paths: tuple[str, ...]
    fingerprint: Fingerprint


class Library:
    """LoRAs side by side, each once."""

    def __init__(self, entries: Sequence[Entry], refused: dict[str, str]) -> None:
        """Take the LoRAs; ``refused`` says which files could not be read, and why."""
        self.entries, self.refused = list(entries), refused
        self.known = Lookalikes([entry.fingerprint for entry in entries])

    @classmethod
    def of_zoo(cls, folder: Path, progress: Progress) -> Self:
        """The models of a zoo; those that were indexed without a fingerprint are read again.

        Raises:
            ZooError: the zoo cannot be read.
        """
        entries, refused = [], {}
        with open_zoo(folder, read_only=True) as zoo:
            stored, files = zoo.fingerprints(), defaultdict(list)
            for file in zoo.known_files().values():
                files[file.model_id].append(file.path)
            total = len(zoo)
            for number, model in enumerate(zoo.models(), 1):
                paths = tuple(files[model.id]) or ((str((folder / model.path).resolve()),) if model.path else ())
                try:
                    found = (
                        Fingerprint.from_bytes(stored[model.id])
                        if model.id in stored
                        else fingerprint_of(LoraFile.open(paths[0] if paths else model.name))
                    )
                    entries.append(Entry(model.id, model.name, paths, found))
                except FileError as error:
                    refused[model.name] = str(error)
                progress(number, total, model.name)
        return cls(entries, refused)

    @classmethod
    def of_folders(cls, folders: Sequence[Path], progress: Progress) -> Self:
        """Every LoRA below some folders.

        Raises:
            FileMissing: there is nothing to read.
        """
        entries: dict[str, Entry] = {}
        refused = {}
        files = find_files(folders)
        for number, path in enumerate(files, 1):
            try:
                lora = LoraFile.open(path)
                known = entries.get(lora.id) or Entry(lora.id, name_of(path), (), fingerprint_of(lora))
                entries[lora.id] = Entry(known.id, known.name, (*known.paths, str(path)), known.fingerprint)
            except FileError as error:
                refused[str(path)] = str(error)
            progress(number, len(files), path.name)
        return cls(list(entries.values()), refused)

    def similar(self, file: Path, k: int) -> SimilarAnswer:
        """The look-alikes of a file, but for itself.

        Raises:
            FileError: the file cannot be read.
        """
        lora = LoraFile.open(file)
        one = fingerprint_of(lora)
        hits, merge = self.likes(one, lora.id, file.resolve())
        named = self.merge(name_of(file), str(file), merge) if merge else None
        return SimilarAnswer(str(file), lora.family, len(self.entries), hits[:k], named, self.refused)

    def entry(self, id: str) -> Entry:
        """One of the LoRAs.

        Raises:
            ModelMissing: there is none with this id, or it could not be read.
        """
        for entry in self.entries:
            if entry.id == id:
                return entry
        raise ModelMissing(
            f"look-alikes: expected a model {id!r} with a fingerprint, found none; list the zoo's models, or index its file again"
        )

    def likes(self, one: Fingerprint, id: str, itself: Path | None) -> tuple[list[Like], Merge | None]:
        """The look-alikes of a fingerprint, most like first, and what it was merged from; the LoRA of that id is one in its other files than ``itself``."""
        hits, same = [], -1
        for found in self.known.of(one):
            entry = self.entries[found.index]
            same = found.index if entry.id == id else same
            others = [path for path in entry.paths if Path(path).resolve() != itself]
            if others or not entry.paths and (itself or entry.id != id):
                hits.append(self.like(found, IDENTICAL if entry.id == id else None, others[0] if others else None))
        return hits, self.known.merge_of(one, leave_out=same)

    def duplicates(self) -> DuplicatesAnswer:
        """Every group of LoRAs with one update, every pair of related ones, and what was merged from what."""
        same: dict[int, list[Likeness]] = defaultdict(list)
        taken: set[int] = set()
        related = []
        for first, other in self.known.pairs():
            if other.cosine < SAME:
                related.append((first, other))
            elif first not in taken and other.index not in taken:
                same[first].append(other)
                taken.add(other.index)
        groups = []
        for index, entry in enumerate(self.entries):
            copies = [Like(entry.id, entry.name, path, IDENTICAL, 1.0, 1.0) for path in entry.paths or (None,)]
            copies += [
                self.like(found, None, path)
                for found in same.get(index, ())
                for path in self.entries[found.index].paths or (None,)
            ]
            if len(copies) > 1 and index not in taken:
                groups.append(copies)
        pairs = [
            (self.part(first), self.like(other)) for first, other in related if taken.isdisjoint((first, other.index))
        ]
        suspects = sorted({index for first, other in related for index in (first, other.index)} - taken)
        merges = [(index, self.known.merge_of(self.entries[index].fingerprint, leave_out=index)) for index in suspects]
        named = [self.merge(self.entries[i].name, self.path(i), merge) for i, merge in merges if merge]
        return DuplicatesAnswer(len(self.entries), groups, pairs, named, self.refused)

    def like(self, found: Likeness, relation: str | None = None, path: str | None = None) -> Like:
        """A look-alike by name."""
        entry = self.entries[found.index]
        return Like(
            entry.id,
            entry.name,
            path or self.path(found.index),
            relation or str(found.relation),
            found.cosine,
            found.strength,
        )

    def merge(self, name: str, path: str | None, merge: Merge) -> MergeAnswer:
        """A merge by names."""
        return MergeAnswer(
            name, path, [self.part(index, weight) for index, weight in merge.weights.items()], merge.explained
        )

    def part(self, index: int, weight: float = 1.0) -> Part:
        """One LoRA by name."""
        return Part(self.entries[index].id, self.entries[index].name, self.path(index), weight)

    def path(self, index: int) -> str | None:
        """Its first file."""
        return next(iter(self.entries[index].paths), None)


def fingerprint_of(lora: LoraFile) -> Fingerprint:
    """The fingerprint of a file, read layer by layer."""
    return Fingerprint.of(lora.each_update())
