"""The zoo's own row, among those of files: what it is bound to, and which state it is in."""

import secrets
from dataclasses import astuple, dataclass, replace
from typing import Final, Self

from loradex.index.errors import RESTORE, ZooDamaged, ZooTooNew
from loradex.index.milvus.rows import packed, shard_of, unpacked
from loradex.index.milvus.table import Table

VERSION: Final = 1
OWN: Final = "zoo"


@dataclass(frozen=True, slots=True)
class Binding:
    """What a zoo says of itself; ``token`` tells a state from another that has its number."""

    version: int
    space: str
    dim: int
    engine: str
    generation: int
    token: str = ""

    @classmethod
    def of(cls, files: Table) -> Self:
        """Read it.

        Raises:
            ZooDamaged: there is none.
            ZooTooNew: a later Loradex wrote it.
        """
        found = None
        for row in files.get([OWN], ("id", "record")):
            try:
                found = cls(*unpacked(row["record"]))
            except (ValueError, TypeError):
                break
        if found is None:
            raise ZooDamaged(
                f"{files.connection}: expected the row of the zoo itself, found none or another; {RESTORE}"
            )
        if found.version > VERSION:
            raise ZooTooNew(
                f"{files.connection}: expected layout {VERSION} or earlier, found {found.version}; update Loradex"
            )
        return found

    def write(self, files: Table) -> None:
        """Write it, as a new state."""
        following = replace(self, generation=self.generation + 1, token=secrets.token_hex(8))
        files.upsert(
            [
                {
                    "id": OWN,
                    "shard": shard_of(OWN),
                    "model": "",
                    "record": packed(astuple(following)),
                    "nothing": [0.0, 0.0],
                }
            ]
        )
