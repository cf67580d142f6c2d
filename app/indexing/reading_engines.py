"""The engines that may read files, by name; each is imported when it is asked for."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loradex.app.indexing.file_reader import Engine


class EngineName(StrEnum):
    """What reads files: threads of this machine, or a Ray cluster."""

    LOCAL = "local"
    RAY = "ray"


def engine_of(name: EngineName, zoo: str, parts: Path | None = None, address: str | None = None) -> Engine:
    """An engine for one zoo; ``parts`` and ``address`` are Ray's: where finished work is kept, by default in the cache, and which cluster is used.

    Raises:
        EngineError: Ray is asked for and not installed, or its options without it.
    """
    from loradex.app.paths import own_cache
    from loradex.retrieval.errors import EngineError

    if name is EngineName.RAY:
        from loradex.app.indexing.ray.reading_engine import RayEngine

        return RayEngine(parts or own_cache() / "parts" / hashlib.sha256(zoo.encode()).hexdigest()[:20], zoo, address)
    if parts or address:
        raise EngineError(
            "--parts and --ray-address: expected --engine ray with them, found the local engine; leave them out, or add it"
        )
    from loradex.app.indexing.local_reading_engine import LocalEngine

    return LocalEngine()
