"""The data of a zoo: models, hits of a search, files that were indexed, and committed states."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loradex.index.vectors import Vector


class FoundBy(StrEnum):
    """The evidence for a model's position in the space."""

    WEIGHTS = "weights"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a zoo.

    Attributes:
        id: derived from the weights, so that a renamed file keeps it.
        name: shown to people.
        family: the family of its base model, such as ``sdxl``.
        found_by: the evidence for its vector. A model found by weights always has a vector, one found by metadata may
            have none.
        path: where its file was seen last.
        concept: what it was made for, if known.
        preview: path of its preview image, relative to the zoo's folder.
        facts: anything else, as a JSON object. ``format``, ``ranks``, ``tags``, ``trigger_words``, ``title`` and
            ``notes`` are used by filters and text search.
        added: when it was first added, in seconds since 1970; set by the zoo if None.
    """

    id: str
    name: str
    family: str
    found_by: FoundBy
    path: str | None = None
    concept: str | None = None
    preview: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    added: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result: a model, its cosine similarity to the query from -1 to 1, and its unit vector (dim,)."""

    model: Model
    score: float
    vector: Vector = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that was indexed, with the id of its model or the error message with which it was refused.

    Attributes:
        reader: identifies the code and settings that read it; a file that another reader read is read again.
    """

    path: str
    size: int  # bytes
    mtime_ns: int
    model_id: str | None = None
    refusal: str | None = None
    reader: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """One committed state of a zoo; its random token differs from that of another state with the same number."""

    generation: int
    token: bytes
