"""All rows of a zoo in Milvus, and the changes that concern several collections."""

from collections.abc import Sequence

from loradex.index.milvus.collections import collection_names
from loradex.index.milvus.connection import Connection
from loradex.index.milvus.derived import Findings, ModelRows, find_outdated
from loradex.index.milvus.file_table import FileTable
from loradex.index.milvus.model_table import ModelTable
from loradex.index.milvus.position_table import PositionTable
from loradex.index.milvus.table import batches


class Tables:
    """The collections of a zoo."""

    def __init__(self, connection: Connection) -> None:
        """Take the collections of a connection's zoo; no request is made."""
        names = collection_names(connection)
        self.connection = connection
        self.models = ModelTable(connection, names.models)
        self.positions = PositionTable(connection, names.positions)
        self.files = FileTable(connection, names.files)

    def write(self, rows: Sequence[ModelRows], stale: Sequence[str] = ()) -> None:
        """Write the rows of models, and delete those positions that they no longer have, by the ids of their rows."""
        self.models.upsert([each.model for each in rows])
        self.positions.upsert([row for each in rows for row in each.positions])
        self.positions.delete(stale)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete models with all their rows."""
        self.positions.delete(ids, "model")  # first, so that no search finds a position without its model
        self.files.delete(ids, "model")
        self.models.delete(ids)

    def compare(self, ids: Sequence[str], dim: int) -> Findings:
        """Compare all rows of some models with what is derived from their records and files.

        Raises:
            ZooDamaged: the row of a file is damaged.
        """
        rows, files = self.models.rows(ids), self.files.by_model(ids)
        return find_outdated(rows, self.positions.by_model(ids), files, dim, self.connection)

    def repair(self, ids: Sequence[str], dim: int) -> list[str]:
        """Write all rows of some models as they are derived; return the ids of those whose record is damaged.

        Raises:
            ZooDamaged: the row of a file is damaged.
        """
        damaged_ids: list[str] = []
        for batch in batches(ids):
            findings = self.compare(batch, dim)
            self.write(findings.outdated, [row["id"] for row in findings.stale])
            damaged_ids += findings.errors
        return damaged_ids

    def model_ids(self) -> list[str]:
        """Return the ids of all models, and of those of which there are positions only."""
        return sorted({*self.models.ids(), *self.positions.model_ids()})
