"""The collection of files that were indexed."""

from collections.abc import Sequence
from typing import Final

from loradex.index.milvus.expressions import ids_expression
from loradex.index.milvus.rows import file_of_row, is_id
from loradex.index.milvus.table import Table, batches
from loradex.index.milvus.zoo_row import ZOO_ID
from loradex.index.model import KnownFile

FILE_FIELDS: Final = ("id", "record")


class FileTable(Table):
    """The rows of files, and the row of the zoo itself, which ``ZooRow`` reads and writes."""

    def files(self) -> list[KnownFile]:
        """Return all files, in order of path.

        Raises:
            ZooDamaged: a row is not as it was written.
        """
        rows = self.scan(f'id != "{ZOO_ID}"', FILE_FIELDS)
        return sorted((file_of_row(row, self.connection) for row in rows), key=lambda file: file.path)

    def by_model(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """Return the files of some models, by model id, in order of path.

        Raises:
            ZooDamaged: a row is not as it was written.
        """
        files: dict[str, list[KnownFile]] = {}
        for batch in batches([id for id in ids if is_id(id)]):
            for row in self.scan(ids_expression(batch, "model"), FILE_FIELDS, total=len(batch)):
                file = file_of_row(row, self.connection)
                files.setdefault(str(file.model_id), []).append(file)
        return {id: sorted(of_model, key=lambda file: file.path) for id, of_model in files.items()}
