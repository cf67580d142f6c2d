"""The rows among those of files that describe the zoo itself, and a change of it that is not finished."""

import secrets
from collections.abc import Collection
from dataclasses import astuple, dataclass, replace
from typing import Final, Self

from loradex.index.errors import RESTORE, ZooDamaged, ZooTooNew
from loradex.index.milvus.rows import Row, pack, shard_of, unpack
from loradex.index.milvus.table import Table
from loradex.index.model import State

VERSION: Final = 2
ZOO_ID: Final = "zoo"  # which no file has: their ids are hashes
UNFINISHED_ID: Final = "unfinished"  # the same
MAX_UNFINISHED: Final = 10_000  # ids, which fit a row


@dataclass(frozen=True, slots=True)
class ZooRow:
    """The layout version of a zoo, what it is bound to, its engine, and its state, as ``model.State``."""

    version: int
    space: str
    dim: int
    engine: str
    generation: int
    token: str = ""

    @classmethod
    def read(cls, files: Table) -> Self:
        """Read the row.

        Raises:
            ZooDamaged: it is missing, or not as it was written.
            ZooTooNew: a later version of Loradex wrote it.
        """
        zoo_row = None
        for row in files.get([ZOO_ID], ("id", "record")):
            try:
                zoo_row = cls(*unpack(row["record"]))
            except (ValueError, TypeError):
                break
        if zoo_row is None:
            raise ZooDamaged(
                f"{files.connection}: expected the row of the zoo itself, found none or another; {RESTORE}"
            )
        if zoo_row.version > VERSION:
            raise ZooTooNew(
                f"{files.connection}: expected layout {VERSION} or earlier, found {zoo_row.version}; update Loradex"
            )
        return zoo_row

    def write(self, files: Table, *, finished: bool) -> None:
        """Write the row with a new state; ``finished`` says that no model is left half changed."""
        row = replace(self, generation=self.generation + 1, token=secrets.token_hex(8))
        files.upsert([own_row(ZOO_ID, astuple(row)), *([own_row(UNFINISHED_ID, [])] if finished else [])])

    @property
    def state(self) -> State:
        """The state of the zoo."""
        return State(self.generation, self.token.encode())


def read_unfinished(files: Table) -> list[str] | None:
    """Return the ids of the models that a change left unfinished, or None for any of them.

    Raises:
        ZooDamaged: the row is not as it was written.
    """
    for row in files.get([UNFINISHED_ID], ("id", "record")):
        try:
            ids = unpack(row["record"])
            return None if ids is None else list(map(str, ids))
        except (ValueError, TypeError):
            raise ZooDamaged(
                f"{files.connection}: expected a list of models that were being changed, found another row; {RESTORE}"
            ) from None
    return []


def write_unfinished(files: Table, ids: Collection[str]) -> None:
    """Write the ids of models before they are changed, so that a change that is cut short can be finished."""
    files.upsert([own_row(UNFINISHED_ID, sorted(ids) if len(ids) <= MAX_UNFINISHED else None)])


def own_row(id: str, value: object) -> Row:
    """Return a row among those of files that holds a value."""
    return {"id": id, "shard": shard_of(id), "model": "", "record": pack(value), "nothing": [0.0, 0.0]}
