"""Zoos: models with their vectors and facts, stored in a folder or in Milvus and searched by cosine similarity."""

from loradex.index.errors import (
    BadModel,
    BadQuery,
    BadVector,
    DiskRefused,
    ModelMissing,
    SpaceMismatch,
    ZooClosed,
    ZooDamaged,
    ZooError,
    ZooExists,
    ZooLocked,
    ZooMissing,
    ZooReadOnly,
    ZooTooNew,
    ZooUnreachable,
)
from loradex.index.filters import Filter
from loradex.index.model import FoundBy, Hit, KnownFile, Model
from loradex.index.opening import AnyZoo, open_or_create_zoo, open_zoo
from loradex.index.sqlite.zoo import Zoo

__all__ = [
    "AnyZoo",
    "BadModel",
    "BadQuery",
    "BadVector",
    "DiskRefused",
    "Filter",
    "FoundBy",
    "Hit",
    "KnownFile",
    "Model",
    "ModelMissing",
    "SpaceMismatch",
    "Zoo",
    "ZooClosed",
    "ZooDamaged",
    "ZooError",
    "ZooExists",
    "ZooLocked",
    "ZooMissing",
    "ZooReadOnly",
    "ZooTooNew",
    "ZooUnreachable",
    "open_or_create_zoo",
    "open_zoo",
]
