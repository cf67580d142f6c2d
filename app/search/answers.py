"""Answers of searches and zero-shot labels, and their JSON."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loradex.app.models import model_path, words_document
from loradex.app.search.query import Query
from loradex.app.search.ranking import SearchHit
from loradex.index import Model
from loradex.retrieval.space.labels import Label


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The hits of one query, best first; ``offset`` hits before them were skipped."""

    query: Query
    zoo: str
    space: str
    took_ms: float
    hits: list[SearchHit]
    offset: int = 0

    def document(self) -> dict[str, object]:
        """The JSON of ``loradex search --json``."""
        hits = [
            {
                **self.reference(hit.model),
                "family": hit.model.family,
                "score": None if hit.score is None else round(hit.score, 6),
                "found_by": str(hit.found_by),
                "concept": hit.model.concept,
                "matched": [str(evidence) for evidence in hit.matched],
                "probability": None if hit.probability is None else round(hit.probability, 6),
                "scores": {str(kind): round(score, 6) for kind, score in hit.scores.items()},
                "place": hit.place.path if hit.place else None,
                "words": words_document(hit.model),
                "copies": [self.reference(copy) for copy in hit.copies],
            }
            for hit in self.hits
        ]
        return {
            "query": self.query.document(),
            "zoo": self.zoo,
            "space": self.space,
            "took_ms": round(self.took_ms, 3),
            "offset": self.offset,
            "hits": hits,
        }

    def reference(self, model: Model) -> dict[str, object]:
        """The id, the name and the path of a model."""
        return {"id": model.id, "name": model.name, "path": model_path(model, self.zoo)}


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """The labels of one file.

    Attributes:
        labels: best first.
        reason: why no label can be trusted, or why the file was refused; None if the first label can be trusted.
        refused: whether the file's weights could not be read.
        vector: the file's vector (dim,) in the space.
        next: if no expert reads the file, the commands that get one: one that is shared, or one that is grown.
    """

    file: str
    family: str
    labels: list[Label]
    reason: str | None = None
    refused: bool = False
    vector: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    next: tuple[str, ...] = ()

    @property
    def abstained(self) -> bool:
        """Whether the answer is "unknown"."""
        return self.reason is not None

    def document(self) -> dict[str, object]:
        """One result of ``loradex label --json``."""
        labels = [
            {"label": label.label, "score": round(label.score, 6), "probability": round(label.probability, 6)}
            for label in self.labels
        ]
        return {
            "file": self.file,
            "family": self.family,
            "abstained": self.abstained,
            "reason": self.reason,
            "labels": labels,
            "next": list(self.next),
        }
