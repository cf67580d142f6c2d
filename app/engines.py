"""The engines that may read files, by name."""

import hashlib
from pathlib import Path

from app.local_engine import LocalEngine
from app.options import EngineName
from app.places import own_cache
from app.reading import Engine
from retrieval.errors import EngineError


def engine_of(name: EngineName, zoo: str, parts: Path | None = None, address: str | None = None) -> Engine:
    """An engine for one zoo; ``parts`` and ``address`` are Ray's: where finished work is kept, by default in the cache, and which cluster is used.

    Raises:
        EngineError: Ray is asked for and not installed, or its options without it.
    """
    if name is EngineName.RAY:
        from app.ray_engine import RayEngine

        return RayEngine(parts or own_cache() / "parts" / hashlib.sha256(zoo.encode()).hexdigest()[:20], zoo, address)
    if parts or address:
        raise EngineError("--parts and --ray-address: expected --engine ray with them, found the local engine; leave them out, or add it")
    return LocalEngine()
