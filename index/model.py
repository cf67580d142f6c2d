"""The data of a zoo: models, hits of a search, files that were indexed, and committed states."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loradex.index.evidence import Evidence, Positions
from loradex.index.vectors import Vector


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a zoo.

    Attributes:
        id: derived from the weights, so that a renamed file keeps it.
        name: shown to people.
        family: the family of its base model, such as ``sdxl``.
        path: where its file was seen last.
        concept: what it was made for, if known.
        preview: path of its preview image, relative to the zoo's folder.
        facts: anything else, as a JSON object. ``format``, ``ranks``, ``tags``, ``trigger_words``, ``title`` and
            ``notes`` are used by filters and text search.
        added: when it was first added, in seconds since 1970; set by the zoo if None.
        evidence: the kinds of evidence that give it a position, the weightiest first; set by the zoo.
    """

    id: str
    name: str
    family: str
    path: str | None = None
    concept: str | None = None
    preview: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    added: int | None = field(default=None, compare=False)
    evidence: tuple[Evidence, ...] = field(default=(), compare=False)

    @property
    def found_by(self) -> Evidence:
        """The weightiest evidence."""
        return self.evidence[0] if self.evidence else Evidence.METADATA


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result.

    Attributes:
        score: the best of ``scores``.
        found_by: the kind of evidence with that score.
        scores: the score of each of the model's positions that the filter lets count.
        positions: those positions, by the same kinds.
    """

    model: Model
    score: float
    found_by: Evidence
    scores: Mapping[Evidence, float] = field(compare=False)
    positions: Positions = field(compare=False, repr=False)

    @property
    def vector(self) -> Vector:
        """The unit vector (dim,) of the position with the best score."""
        return self.positions[self.found_by].vector

    @property
    def is_calibrated(self) -> bool:
        """Whether the score is log-odds, and not a cosine."""
        return self.positions[self.found_by].is_calibrated


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file that was indexed, with the id of its model or the error message with which it was refused.

    Attributes:
        reader: identifies the code and settings that read it; a file that another reader read is read again.
        name: shown to people; None for the name of its model.
        facts: its own words (``title``, ``tags``, ``trigger_words``, ``notes``), by which it finds its model: files
            with the same weights may have other names and side-cars.
    """

    path: str
    size: int  # bytes
    mtime_ns: int
    model_id: str | None = None
    refusal: str | None = None
    reader: str = ""
    name: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class State:
    """One committed state of a zoo; its random token differs from that of another state with the same number."""

    generation: int
    token: bytes
