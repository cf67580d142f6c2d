"""The collection of models: models, vectors and fingerprints by id, and searches."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loradex.index.candidates import approximate_candidates
from loradex.index.entry import Entry
from loradex.index.milvus.expressions import WordQuery, all_of
from loradex.index.milvus.rows import Row, model_of_row, unpack, vector_of_row
from loradex.index.milvus.table import Table, batches
from loradex.index.model import Hit, Model
from loradex.index.vectors import Vector

MODEL_FIELDS: Final = ("id", "record")
ALL_FIELDS: Final = (
    *MODEL_FIELDS,
    *("shard", "family", "format", "found_by", "rank", "added", "tags", "folders", "words", "placed", "vector"),
    "fingerprint",
)


class ModelTable(Table):
    """The rows of models."""

    def model_of(self, row: Row) -> Model:
        """Return the model of a row.

        Raises:
            ZooDamaged: the row is not as it was written.
        """
        return model_of_row(row, self.connection)

    def rows(self, ids: Sequence[str]) -> dict[str, Row]:
        """Return the complete rows of those ids that exist, by id."""
        return {row["id"]: row for row in self.get(ids, ALL_FIELDS)}

    def models(self, ids: Sequence[str]) -> dict[str, Model]:
        """Return the models of those ids that exist, by id."""
        return {row["id"]: self.model_of(row) for row in self.get(ids, MODEL_FIELDS)}

    def ids(self, condition: str = "") -> list[str]:
        """Return the ids of the models that meet a condition."""
        return [row["id"] for row in self.scan(condition, ("id",))]

    def in_order(self, ids: Sequence[str], condition: str) -> Iterator[Model]:
        """Yield the models of sorted ids that exist and meet a condition, read in batches."""
        for batch in batches(ids):
            rows = self.get(batch, MODEL_FIELDS, condition)
            yield from (self.model_of(row) for row in sorted(rows, key=lambda row: str(row["id"])))

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the counts of each column of ``BaseZoo.counts``."""
        counts: dict[str, dict[str, int]] = {"family": {}, "format": {}, "found_by": {}, "tag": {}}
        for row in self.scan("", MODEL_FIELDS):
            entry = Entry.from_model(self.model_of(row))
            values: dict[str, Iterable[str | None]] = {
                "family": [entry.family],
                "format": [entry.format],
                "found_by": [entry.found_by],
                "tag": entry.tags,
            }
            for column, of_model in values.items():
                for value in of_model:
                    if value is not None:
                        counts[column][value] = counts[column].get(value, 0) + 1
        return {
            column: dict(sorted(by_value.items(), key=lambda pair: (-pair[1], pair[0])))
            for column, by_value in counts.items()
        }

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the unit vectors (dim,) of those models that have one, by id."""
        rows = self.get(ids, ("id", "placed", "vector"))
        return {row["id"]: vector for row in rows if (vector := vector_of_row(row)) is not None}

    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the fingerprints of all models that have one, or of some, in order of id."""
        fields = ("id", "fingerprint")
        rows = self.scan("", fields) if ids is None else self.get(ids, fields)
        return {
            row["id"]: bytes.fromhex(unpack(row["fingerprint"]))
            for row in sorted(rows, key=lambda row: str(row["id"]))
            if row["fingerprint"]
        }

    def nearest(self, query: Vector, k: int, condition: str, *, exact: bool) -> list[Hit]:
        """Return the ``k`` best models for a unit query (dim,), by cosines in float64, ties in order of id.

        ``exact`` says that Milvus's index scores all vectors. Then candidates are taken until no other model can be
        better than the last hit, or tie with it.
        """
        rounding = len(query) * 2.0**-23  # error of an inner product of unit vectors in float32, summed in any order

        def cosines(rows: Sequence[Row]) -> NDArray[np.float64]:
            vectors = np.array([row["vector"] for row in rows], np.float32).reshape(-1, len(query))
            return (vectors.astype(np.float64) * query).sum(axis=1)

        def is_enough(rows: Sequence[Row]) -> bool:
            return bool(np.sort(cosines(rows))[-k] > rows[-1]["distance"] + rounding)

        n_rows = k if exact else approximate_candidates(k)
        rows = self.search(query.tolist(), "vector", n_rows, condition, (*MODEL_FIELDS, "vector"), is_enough)
        scored = zip(cosines(rows).tolist(), rows, strict=True)
        best = sorted(scored, key=lambda pair: (-pair[0], pair[1]["id"]))[:k]
        return [Hit(self.model_of(row), score, np.array(row["vector"], np.float32)) for score, row in best]

    def match(self, query: WordQuery, k: int, condition: str) -> list[Model]:
        """Return the ``k`` best models of a full-text search by Milvus's BM25, ties in order of id."""

        def is_enough(rows: Sequence[Row]) -> bool:
            return bool(rows[k - 1]["distance"] != rows[-1]["distance"])

        expression = all_of(condition, query.expression)
        rows = self.search(query.ranking, "words_bm25", k, expression, MODEL_FIELDS, is_enough)
        ranks: dict[float, int] = {}
        for rank, row in enumerate(rows):  # best first
            ranks.setdefault(row["distance"], rank)
        best = sorted(rows, key=lambda row: (ranks[row["distance"]], row["id"]))[:k]
        return [self.model_of(row) for row in best]
