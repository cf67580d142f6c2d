"""The collection of files that were indexed."""

from collections.abc import Iterable, Sequence
from typing import Final

from loradex.index.milvus.expressions import ids_expression
from loradex.index.milvus.rows import file_of_row, is_id
from loradex.index.milvus.table import Table, batches
from loradex.index.milvus.zoo_row import UNFINISHED_ID, ZOO_ID
from loradex.index.model import KnownFile

FILE_FIELDS: Final = ("id", "record")


class FileTable(Table):
    """The rows of files, and the rows of the zoo itself, of module ``zoo_row``."""

    def files(self) -> list[KnownFile]:
        """Return all files, in order of path.

        Raises:
            ZooDamaged: a row is not as it was written.
        """
        rows = self.scan(f'id not in ["{ZOO_ID}", "{UNFINISHED_ID}"]', FILE_FIELDS)
        return sorted((file_of_row(row, self.connection) for row in rows), key=lambda file: file.path)

    def all_by_model(self) -> dict[str, list[KnownFile]]:
        """Return the files of all models, by model id, in order of path.

        Raises:
            ZooDamaged: a row is not as it was written.
        """
        return group_by_model(self.files())

    def by_model(self, ids: Sequence[str]) -> dict[str, list[KnownFile]]:
        """Return the files of some models, by model id, in order of path.

        Raises:
            ZooDamaged: a row is not as it was written.
        """
        rows = (
            row
            for batch in batches([id for id in dict.fromkeys(ids) if is_id(id)])
            for row in self.scan(ids_expression(batch, "model"), FILE_FIELDS, total=len(batch))
        )
        files = group_by_model(file_of_row(row, self.connection) for row in rows)
        return {id: sorted(of_model, key=lambda file: file.path) for id, of_model in files.items()}


def group_by_model(files: Iterable[KnownFile]) -> dict[str, list[KnownFile]]:
    """Return files by the id of their model, without those that were refused."""
    groups: dict[str, list[KnownFile]] = {}
    for file in files:
        if file.model_id is not None:
            groups.setdefault(file.model_id, []).append(file)
    return groups
