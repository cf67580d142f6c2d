"""The fields of model rows that are derived from the record and the files: derived again, compared and repaired."""

from collections.abc import Mapping, Sequence

from loradex.index.base import Progress
from loradex.index.entry import Entry
from loradex.index.errors import BadModel, BadVector, ZooDamaged
from loradex.index.milvus.file_table import FileTable
from loradex.index.milvus.model_table import ALL_FIELDS, ModelTable
from loradex.index.milvus.rows import Row, model_of_row, model_row, vector_of_row
from loradex.index.model import KnownFile
from loradex.index.vectors import to_unit

Files = Mapping[str, Sequence[KnownFile]]  # by model id


def derived_row(row: Row, files: Sequence[KnownFile], dim: int, place: object) -> Row:
    """Return a row as it is derived from its record, its vector and the files of its model.

    Raises:
        ZooDamaged, BadModel, BadVector: the record or the vector is damaged.
    """
    model, vector = model_of_row(row, place), vector_of_row(row)
    entry = Entry.from_model(model)
    unit = None if vector is None else to_unit(vector, dim, f"vector of model {model.id!r}", BadVector)
    paths = [file.path for file in files]
    derived = model_row(entry, entry.added or 0, unit, dim, paths, row["fingerprint"])
    return derived | {"record": row["record"]}


def outdated_rows(rows: Mapping[str, Row], files: Files, dim: int, place: object) -> tuple[list[Row], list[str]]:
    """Return the rows that differ from their derived row, as derived, and the ids of rows that are damaged."""
    outdated, damaged_ids = [], []
    for id, row in rows.items():
        try:
            derived = derived_row(row, files.get(id, []), dim, place)
        except (ZooDamaged, BadVector):
            damaged_ids.append(id)
            continue
        if derived != row:
            outdated.append(derived)
    return outdated, damaged_ids


def find_problems(models: ModelTable, files: FileTable, dim: int, progress: Progress) -> list[str]:
    """Return every row that is not as it was written, a line each."""
    place, total, all_files = models.connection, len(models), files.files()
    files_by_model: dict[str, list[KnownFile]] = {}
    for file in all_files:
        files_by_model.setdefault(str(file.model_id), []).append(file)
    problems = []
    for done, row in enumerate(models.scan("", ALL_FIELDS), 1):
        try:
            if derived_row(row, files_by_model.get(row["id"], []), dim, place) != row:
                problems.append(f"{place}: the columns of model {row['id']!r} are not those of its record")
        except (ZooDamaged, BadVector, BadModel) as error:
            problems.append(str(error))
        progress(done, total)
    model_ids = {file.model_id for file in all_files if file.model_id}
    missing = model_ids - {row["id"] for row in models.get(sorted(model_ids), ("id",))}
    return [*problems, *(f"{place}: a file of model {id!r}, which is not in the zoo" for id in sorted(missing))]
