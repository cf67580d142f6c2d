"""The engines that read files while indexing, by name. Not to be confused with index engines, which search vectors.

Imported when the command line starts, so each engine and its libraries are imported only when it is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask


class EngineName(StrEnum):
    """The value of ``--engine``: threads of this machine, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


class ReadingEngine(Protocol):
    """Runs a ``FileReader`` on many files, in threads or on other machines."""

    def read_files(self, tasks: Iterable[ReadTask], reader: FileReader) -> Generator[ReadResult, None, None]:
        """Read files; yields the results in the order of the tasks.

        Raises:
            EngineError: the engine cannot be used.
        """
        ...

    def finish(self) -> None:
        """Remove what was kept so that a stopped run can continue; called when all results are in the zoo."""
        ...


def make_reading_engine(
    name: EngineName, zoo: str, parts: Path | None = None, address: str | None = None
) -> ReadingEngine:
    """Make an engine.

    Args:
        name: which one.
        zoo: the zoo that it reads for.
        parts: for Ray, the folder of finished work; by default one in the user's cache.
        address: for Ray, the address of the cluster.

    Raises:
        EngineError: Ray is not installed, or options of Ray were given for another engine.
    """
    from loradex.app.paths import user_cache_dir
    from loradex.retrieval.errors import EngineError

    if name is EngineName.RAY:
        from loradex.app.indexing.ray.reading_engine import RayReadingEngine

        default = user_cache_dir() / "parts" / hashlib.sha256(zoo.encode()).hexdigest()[:20]
        return RayReadingEngine(parts or default, zoo, address)
    if parts or address:
        raise EngineError(
            "--parts and --ray-address: expected --engine ray with them, found the local engine; leave them out, or add it"
        )
    from loradex.app.indexing.local_reading_engine import LocalReadingEngine

    return LocalReadingEngine()
