"""The rows of one collection, read and written in requests of a size that Milvus accepts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from loradex.index.candidates import candidates_for
from loradex.index.milvus.connection import Connection
from loradex.index.milvus.expressions import all_of, ids_expression
from loradex.index.milvus.rows import Row, is_id

MAX_ROWS: Final = 16_384  # of an answer of Milvus, and so hits of a search
SCAN_ROWS: Final = 2_048  # of an answer while a collection is scanned, each of some kilobytes
BATCH: Final = 500  # rows of a request
SHARDS: Final = 2**32

Item = TypeVar("Item")


class Table:
    """The rows of one collection."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Take the collection of a name; no request is made."""
        self.connection, self.name = connection, name

    def call(self, method: str, **options: Any) -> Any:
        """Call a method of ``MilvusClient`` for this collection.

        Raises:
            ZooClosed, ZooUnreachable, BadQuery: as ``Connection.call``.
        """
        return self.connection.call(method, self.name, **options)

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.call("query", filter="", output_fields=["count(*)"])[0]["count(*)"])

    def get(self, ids: Sequence[str], fields: Sequence[str], condition: str = "") -> list[Row]:
        """Return the rows of those ids that exist and meet a condition."""
        valid_ids = [id for id in dict.fromkeys(ids) if is_id(id)]
        rows: list[Row] = []
        for batch in batches(valid_ids):
            expression = all_of(ids_expression(batch), condition)
            rows += map(plain_row, self.call("query", filter=expression, output_fields=list(fields)))
        return rows

    def scan(self, condition: str, fields: Sequence[str], total: int | None = None) -> Iterator[Row]:
        """Yield all rows that meet a condition, in no order, by ranges of shards that fit one answer.

        ``total`` is about how many rows there are; None stands for the size of the collection.
        """
        ranges = -(-(len(self) if total is None else total) // SCAN_ROWS) or 1
        step = -(-SHARDS // ranges)
        pending = [(start, min(start + step, SHARDS)) for start in range(0, SHARDS, step)][::-1]
        while pending:
            start, end = pending.pop()
            in_range = "" if (start, end) == (0, SHARDS) else f"shard >= {start} and shard < {end}"
            expression = all_of(in_range, condition)
            rows = self.call("query", filter=expression, output_fields=list(fields), limit=MAX_ROWS)
            if len(rows) < MAX_ROWS or end - start == 1:
                yield from map(plain_row, rows)
            else:
                middle = (start + end) // 2
                pending += [(middle, end), (start, middle)]

    def search(
        self,
        query: Any,
        field: str,
        k: int,
        condition: str,
        fields: Sequence[str],
        is_enough: Callable[[Sequence[Row]], bool],
    ) -> list[Row]:
        """Return more than ``k`` of the best rows, each with its ``distance``.

        Until they are enough, four times as many are requested.
        """
        n_rows = candidates_for(k)
        while True:
            limit = min(n_rows, MAX_ROWS)
            (hits,) = self.call(
                "search", data=[query], anns_field=field, limit=limit, filter=condition, output_fields=list(fields)
            )
            rows = [{"id": hit["id"], "distance": hit["distance"], **hit["entity"]} for hit in hits]
            if len(rows) < limit or limit == MAX_ROWS or is_enough(rows):
                return rows
            n_rows *= 4

    def upsert(self, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those with the same id."""
        for batch in batches(rows):
            self.call("upsert", data=list(batch))

    def delete(self, values: Sequence[str], field: str = "id") -> None:
        """Delete the rows in which a field has one of some values."""
        for batch in batches(values):
            self.call("delete", filter=ids_expression(batch, field))


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Yield items in batches of ``BATCH``."""
    return (items[start : start + BATCH] for start in range(0, len(items), BATCH))


def plain_row(row: Row) -> Row:
    """Return a row with lists in place of pymilvus's own containers."""
    return {
        field: list(value) if not isinstance(value, str | int | float | list | None) else value
        for field, value in row.items()
    }
