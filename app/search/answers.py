"""Answers of search and labels, and their JSON."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loradex.app.models import path_of
from loradex.app.search.query import Query
from loradex.app.search.ranking import Found
from loradex.index import Model
from loradex.retrieval.space.labels import Label


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
        about = {
            "query": self.query.document(),
            "zoo": self.zoo,
            "space": self.space,
            "took_ms": round(self.took_ms, 3),
        }
        return {**about, "offset": self.offset, "hits": hits}

    def named(self, model: Model) -> dict[str, object]:
        """Which model it is."""
        return {"id": model.id, "name": model.name, "path": path_of(model, self.zoo)}


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
        labels = [
            {"label": found.label, "score": round(found.score, 6), "probability": round(found.probability, 6)}
            for found in self.labels
        ]
        return {
            "file": self.file,
            "family": self.family,
            "abstained": self.abstained,
            "reason": self.reason,
            "labels": labels,
        }
