"""Loradex finds fine-tuned image models by what their weights say.

``Loradex`` searches and labels on this machine, ``Client`` asks a server that runs ``loradex serve --api``, ``open_zoo`` opens a zoo.
What is named here is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loradex.app.client import ApiError, Client
    from loradex.app.search.service import Loradex
    from loradex.index import Filter, Zoo, ZooError, open_zoo
    from loradex.retrieval.errors import (
        CheckpointError,
        DescriptionError,
        EngineError,
        FetchError,
        FileError,
        LoradexError,
        NoExpert,
        QueryError,
    )

__all__ = [
    "ApiError",
    "CheckpointError",
    "Client",
    "DescriptionError",
    "EngineError",
    "FetchError",
    "FileError",
    "Filter",
    "Loradex",
    "LoradexError",
    "NoExpert",
    "QueryError",
    "Zoo",
    "ZooError",
    "open_zoo",
]

HOME: Final = {
    "ApiError": "loradex.app.client",
    "Client": "loradex.app.client",
    "Loradex": "loradex.app.search.service",
    "Filter": "loradex.index",
    "Zoo": "loradex.index",
    "ZooError": "loradex.index",
    "open_zoo": "loradex.index",
}
ERRORS: Final = "loradex.retrieval.errors"  # where the other names are defined


def __getattr__(name: str) -> Any:
    """Import one of ``__all__``."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOME.get(name, ERRORS)), name)


def __dir__() -> list[str]:
    """List what can be imported from here."""
    return __all__
