"""The row that describes the zoo itself, stored among the rows of files."""

import secrets
from dataclasses import astuple, dataclass, replace
from typing import Final, Self

from loradex.index.errors import RESTORE, ZooDamaged, ZooTooNew
from loradex.index.milvus.rows import pack, shard_of, unpack
from loradex.index.milvus.table import Table
from loradex.index.model import State

VERSION: Final = 1
ZOO_ID: Final = "zoo"  # which no file has: their ids are hashes


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

    def write(self, files: Table) -> None:
        """Write the row with a new state."""
        row = replace(self, generation=self.generation + 1, token=secrets.token_hex(8))
        record = pack(astuple(row))
        files.upsert([{"id": ZOO_ID, "shard": shard_of(ZOO_ID), "model": "", "record": record, "nothing": [0.0, 0.0]}])

    @property
    def state(self) -> State:
        """The state of the zoo."""
        return State(self.generation, self.token.encode())
