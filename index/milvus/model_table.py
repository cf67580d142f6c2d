"""The collection of models: models, positions and fingerprints by id, and full-text search."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from loradex.index.entry import Entry
from loradex.index.evidence import Evidence, Position, Positions
from loradex.index.milvus.expressions import WordQuery, all_of
from loradex.index.milvus.rows import FILTERED, Row, model_of_row, positions_of_row, unpack
from loradex.index.milvus.table import Table, batches
from loradex.index.model import Hit, KnownFile, Model
from loradex.index.scoring import hits_of
from loradex.index.vectors import Vector

MODEL_FIELDS: Final = ("id", "record", "evidence")
POSITIONED_FIELDS: Final = (*MODEL_FIELDS, "places")
ALL_FIELDS: Final = (*POSITIONED_FIELDS, *FILTERED, "words", "fingerprint")


class ModelTable(Table):
    """The rows of models."""

    def model_of(self, row: Row) -> Model:
        """Return the model of a row.

        Raises:
            ZooDamaged: the row is not as it was written.
        """
        return model_of_row(row, self.connection)

    def positions_of(self, row: Row, dim: int) -> dict[Evidence, Position]:
        """Return the positions of a row, with vectors (dim,).

        Raises:
            ZooDamaged: the row is not as it was written.
        """
        return positions_of_row(row, dim, self.connection)

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

    def counts(self, files: Mapping[str, Sequence[KnownFile]]) -> dict[str, dict[str, int]]:
        """Return the counts of each column of ``BaseZoo.counts``; ``files`` are those of each model, by id."""
        counts: dict[str, dict[str, int]] = {"family": {}, "format": {}, "found_by": {}, "tag": {}}
        for row in self.scan("", MODEL_FIELDS):
            model = self.model_of(row)
            entry = Entry.from_model(model).with_files(files.get(model.id, []))
            values: dict[str, Iterable[str | None]] = {
                "family": [entry.family],
                "format": [entry.format],
                "found_by": map(str, model.evidence or [Evidence.METADATA]),
                "tag": entry.texts.tag_set,
            }
            for column, of_model in values.items():
                for value in of_model:
                    if value is not None:
                        counts[column][value] = counts[column].get(value, 0) + 1
        return {
            column: dict(sorted(by_value.items(), key=lambda pair: (-pair[1], pair[0])))
            for column, by_value in counts.items()
        }

    def positions(self, ids: Sequence[str], dim: int) -> dict[str, Positions]:
        """Return the positions, with vectors (dim,), of those models that have one, by id."""
        rows = self.get(ids, ("id", "places"))
        return {row["id"]: positions for row in rows if (positions := self.positions_of(row, dim))}

    def fingerprints(self, ids: Sequence[str] | None = None) -> dict[str, bytes]:
        """Return the fingerprints of all models that have one, or of some, in order of id."""
        fields = ("id", "fingerprint")
        rows = self.scan("", fields) if ids is None else self.get(ids, fields)
        return {
            row["id"]: bytes.fromhex(unpack(row["fingerprint"]))
            for row in sorted(rows, key=lambda row: str(row["id"]))
            if row["fingerprint"]
        }

    def hits(self, ids: Sequence[str], query: Vector, kinds: Sequence[Evidence]) -> list[Hit]:
        """Return the hits of models by their positions of some kinds, best first, ties in order of id.

        The query (dim + 1,) is one of ``vectors.scored_queries``. A model that has none of these positions, as it was
        changed after it was found, is left out.
        """
        placed = []
        for row in self.get(ids, POSITIONED_FIELDS):
            positions = self.positions_of(row, len(query) - 1)
            if counted := [kind for kind in kinds if kind in positions]:
                placed.append((self.model_of(row), {kind: positions[kind] for kind in counted}))
        return sorted(hits_of(placed, query), key=lambda hit: (-hit.score, hit.model.id))

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
