"""Everything in a zoo in Milvus that is not as it was written."""

from loradex.index.base import Progress
from loradex.index.milvus.table import batches
from loradex.index.milvus.tables import Tables


def find_problems(tables: Tables, dim: int, progress: Progress) -> list[str]:
    """Return every row that is not as it was written, a line each.

    Raises:
        ZooDamaged: the row of a file is damaged.
    """
    place, ids, problems, done = tables.connection, tables.model_ids(), list[str](), 0
    for batch in batches(ids):
        findings = tables.compare(batch, dim)
        changed_ids = {each.model["id"] for each in findings.outdated} | {row["model"] for row in findings.stale}
        problems += [
            f"{place}: the columns or positions of model {id!r} are not those of its record"
            for id in sorted(changed_ids)
        ]
        problems += map(str, findings.errors.values())
        done += len(batch)
        progress(done, len(ids))
    missing = tables.files.all_by_model().keys() - set(tables.models.ids())
    return [*problems, *(f"{place}: a file of model {id!r}, which is not in the zoo" for id in sorted(missing))]
