"""What the command line, the page and ``--json`` tell people: the documents of the design, as data classes."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.query import Query
from app.ranking import Found
from index import FoundBy, Model
from retrieval.label import Label

MOST_FAMILIES: Final = 10  # named in an advice

Progress = Callable[[int, int, str], None]  # files done, files in all, the file


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The hits of one query after ``offset`` others, best first."""

    query: Query
    zoo: str
    space: str
    took_ms: float
    hits: list[Found]
    offset: int = 0

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex search --json``."""
        hits = [
            {
                **self.named(hit.model),
                "family": hit.model.family,
                "score": round(hit.score, 6),
                "found_by": str(hit.found_by),
                "concept": hit.model.concept,
                "matched": [str(way) for way in hit.matched],
                "probability": None if hit.probability is None else round(hit.probability, 6),
                "copies": [self.named(copy) for copy in hit.copies],
            }
            for hit in self.hits
        ]
        about = {"query": self.query.document(), "zoo": self.zoo, "space": self.space, "took_ms": round(self.took_ms, 3)}
        return {**about, "offset": self.offset, "hits": hits}

    def named(self, model: Model) -> dict[str, object]:
        """Which model it is."""
        return {"id": model.id, "name": model.name, "path": path_of(model, self.zoo)}


def described(model: Model, zoo: str) -> dict[str, Any]:
    """A model of a zoo as JSON has it."""
    return asdict(model) | {"path": path_of(model, zoo)}


def path_of(model: Model, zoo: str) -> str | None:
    """Where a model's file lies, seen from anywhere."""
    if model.path is None or "://" in model.path:
        return model.path
    return str((Path(zoo) / model.path).resolve())


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """The labels of one file, best first; ``reason`` says why there is none to trust; ``vector`` (dim,) is its place in the space."""

    file: str
    family: str
    labels: list[Label]
    reason: str | None = None
    refused: bool = False  # the file could not be read by its weights at all
    vector: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    @property
    def abstained(self) -> bool:
        """Whether the answer is "unknown"."""
        return self.reason is not None

    def document(self) -> dict[str, object]:
        """One result of ``loradex label --json``."""
        labels = [{"label": found.label, "score": round(found.score, 6), "probability": round(found.probability, 6)} for found in self.labels]
        return {"file": self.file, "family": self.family, "abstained": self.abstained, "reason": self.reason, "labels": labels}


@dataclass(slots=True)
class IndexAnswer:
    """What became of some files.

    Attributes:
        understood: the family of each file that was read, by what it is known by.
        unchanged: files that were known as they are.
        added, updated, moved, copies: what those that were read are to the zoo.
        missing: known files that are gone; removed: models that were taken out with them.
        refused: files that could not be read, and why.
    """

    zoo: str
    understood: dict[FoundBy, dict[str, str]] = field(default_factory=lambda: {by: {} for by in FoundBy})
    unchanged: int = 0
    added: int = 0
    updated: int = 0
    moved: int = 0
    copies: int = 0
    missing: list[str] = field(default_factory=list)
    removed: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def by_weights(self) -> int:
        """How many files were understood by their weights."""
        return len(self.understood[FoundBy.WEIGHTS])

    @property
    def by_metadata(self) -> int:
        """How many files are known by their metadata alone."""
        return len(self.understood[FoundBy.METADATA])

    @property
    def advice(self) -> str | None:
        """What would have the files that are known by their metadata alone read by their weights."""
        if not self.by_metadata:
            return None
        families = Counter(self.understood[FoundBy.METADATA].values())
        named = ", ".join(f"{family} ({count})" for family, count in families.most_common(MOST_FAMILIES))
        return (
            f"No expert reads {named}: these files are found by their names, tags and trigger words, and as look-alikes. To have them read by weights, "
            "train an expert on labelled LoRAs of that family (`loradex train FOLDER`), or name a folder that holds one in $LORADEX_ENCODER; then index again."
        )

    @property
    def files(self) -> int:
        """How many files were looked at."""
        return self.by_weights + self.by_metadata + self.unchanged + len(self.refused)

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex index --json``."""
        counts = {"by_weights": self.by_weights, "by_metadata": self.by_metadata, "advice": self.advice}
        files = [{"file": file, "family": family, "found_by": str(by)} for by, known in self.understood.items() for file, family in known.items()]
        return asdict(self) | counts | {"understood": files, "refused": reasons(self.refused)}


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
            "related": [{"id": one.id, "name": one.name, "path": one.path, "other": asdict(other)} for one, other in self.related],
            "merges": [asdict(merge) for merge in self.merges],
            "refused": reasons(self.refused),
        }


@dataclass(frozen=True, slots=True)
class InspectAnswer:
    """What some files say of themselves."""

    files: list[dict[str, Any]]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex inspect --json``."""
        return {"files": self.files, "refused": reasons(self.refused)}


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field of a side-car or card; an old value of None was none, a new one of None is taken back."""

    field: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Description:
    """What was written about one file, and where."""

    file: str
    target: str
    changes: list[FieldChange]


@dataclass(frozen=True, slots=True)
class DescribeAnswer:
    """What was written about some files; nothing was in a dry run."""

    form: str
    dry_run: bool
    files: list[Description]
    refused: dict[str, str]

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex describe --json``."""
        return {"as": self.form, "dry_run": self.dry_run, "files": [asdict(file) for file in self.files], "refused": reasons(self.refused)}


def reasons(refused: dict[str, str]) -> list[dict[str, str]]:
    """Refused files as JSON has them."""
    return [{"file": file, "reason": why} for file, why in refused.items()]
