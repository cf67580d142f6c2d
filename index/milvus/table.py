"""One collection of Milvus, by its rows; whatever is asked is asked in parts that its server takes."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from loradex.index.milvus.connection import Connection
from loradex.index.milvus.expressions import both, of_ids
from loradex.index.milvus.rows import Row, is_id
from loradex.index.sqlite.snapshot import SPARE

MOST: Final = 16_384  # rows of an answer of Milvus, and so hits of a search
USUAL: Final = 2_048  # rows of an answer, of some kilobytes each, while all are read
BATCH: Final = 500  # rows a request
SHARDS: Final = 2**32


class Table:
    """The rows of one collection."""

    def __init__(self, connection: Connection, name: str) -> None:
        """Ask for nothing yet."""
        self.connection, self.name = connection, name

    def ask(self, what: str, **options: Any) -> Any:
        """The answer of a method of ``MilvusClient`` on this collection.

        Raises:
            ZooClosed, ZooUnreachable, BadQuery: as ``Connection.ask``.
        """
        return self.connection.ask(what, self.name, **options)

    def __len__(self) -> int:
        """The number of rows."""
        return int(self.ask("query", filter="", output_fields=["count(*)"])[0]["count(*)"])

    def get(self, ids: Sequence[str], columns: Sequence[str], condition: str = "") -> list[Row]:
        """The rows of those ids that are there and meet a condition."""
        known = [id for id in dict.fromkeys(ids) if is_id(id)]
        found = (
            self.ask("query", filter=both(of_ids(some), condition), output_fields=list(columns))
            for some in parts_of(known)
        )
        return [plain_row(row) for rows in found for row in rows]

    def walk(self, condition: str, columns: Sequence[str], total: int | None = None) -> Iterator[Row]:
        """All rows that meet a condition, in no order, by parts of their shards that are small enough for one answer; ``total`` is about how many there are."""
        parts = -(-(len(self) if total is None else total) // USUAL) or 1
        step = -(-SHARDS // parts)
        waiting = [(start, min(start + step, SHARDS)) for start in range(0, SHARDS, step)][::-1]
        while waiting:
            start, end = waiting.pop()
            shard = "" if (start, end) == (0, SHARDS) else f"shard >= {start} and shard < {end}"
            rows = self.ask("query", filter=both(shard, condition), output_fields=list(columns), limit=MOST)
            if len(rows) < MOST or end - start == 1:
                yield from map(plain_row, rows)
            else:
                middle = (start + end) // 2
                waiting += [(middle, end), (start, middle)]

    def search(
        self,
        asked: Any,
        field: str,
        k: int,
        condition: str,
        columns: Sequence[str],
        enough: Callable[[Sequence[Row]], bool],
    ) -> list[Row]:
        """The rows nearest to what is asked, each with its ``distance``: somewhat more than ``k``, and more again until there are ``enough``, or all."""
        wanted = k + SPARE
        while True:
            limit = min(wanted, MOST)
            (found,) = self.ask(
                "search", data=[asked], anns_field=field, limit=limit, filter=condition, output_fields=list(columns)
            )
            rows = [{"id": hit["id"], "distance": hit["distance"], **hit["entity"]} for hit in found]
            if len(rows) < limit or limit == MOST or enough(rows):
                return rows
            wanted *= 4

    def upsert(self, rows: Sequence[Row]) -> None:
        """Insert rows, or replace those with the same id."""
        for start in range(0, len(rows), BATCH):
            self.ask("upsert", data=list(rows[start : start + BATCH]))

    def delete(self, ids: Sequence[str], column: str = "id") -> None:
        """Delete the rows in which a column has one of some ids."""
        for some in parts_of(ids):
            self.ask("delete", filter=of_ids(some, column))


def parts_of(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Some ids at a time."""
    return (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))


def plain_row(row: Row) -> Row:
    """A row with lists in the place of what pymilvus has for them."""
    return {
        column: list(value) if not isinstance(value, str | int | float | list | None) else value
        for column, value in row.items()
    }
