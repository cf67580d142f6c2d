"""What a zoo holds and what it answers."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from loradex.index.vectors import Vector


class FoundBy(StrEnum):
    """What a model's place in the zoo rests on."""

    WEIGHTS = "weights"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a zoo.

    Attributes:
        id: derived from the weights, so that a renamed file keeps it.
        name: what people read.
        family: the model tree it was fine-tuned from.
        found_by: what its vector rests on; a model by weights always has a vector, one by metadata may have none.
        path: where its file was seen last.
        concept: what it was made for, where known.
        preview: the file name of a drawing, relative to the zoo's folder.
        facts: anything else, as JSON holds it; ``format``, ``ranks``, ``tags``, ``trigger_words``, ``title`` and ``notes`` are filtered or searched by.
        added: when a zoo took it first, in seconds since 1970; the zoo says so where it is None.
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
    """One answer to a query; ``score`` is the cosine, from -1 to 1, of the query with the model's unit vector (dim,)."""

    model: Model
    score: float
    vector: Vector = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """What became of a file when it was last read: a model, or a refusal in one line; ``reader`` names what read it."""

    path: str
    size: int  # bytes
    mtime_ns: int
    model_id: str | None = None
    refusal: str | None = None
    reader: str = ""
