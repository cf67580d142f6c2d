"""Loradex finds fine-tuned image models by what their weights say.

``Loradex`` searches and labels on this machine, ``Client`` talks to a server started by ``loradex serve --api``, and
``open_zoo`` opens a zoo. Names are imported on first use, so that ``import loradex`` is fast and does not import torch.
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

MODULES: Final = {
    "ApiError": "loradex.app.client",
    "Client": "loradex.app.client",
    "Loradex": "loradex.app.search.service",
    "Filter": "loradex.index",
    "Zoo": "loradex.index",
    "ZooError": "loradex.index",
    "open_zoo": "loradex.index",
}
ERRORS_MODULE: Final = "loradex.retrieval.errors"  # of all other names


def __getattr__(name: str) -> Any:
    """Import a name of ``__all__`` on first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES.get(name, ERRORS_MODULE)), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
