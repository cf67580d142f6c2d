"""Zoos: models with their positions and facts, stored in a folder or in Milvus and searched by score and by words."""

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
    ZooOutdated,
    ZooReadOnly,
    ZooTooNew,
    ZooUnreachable,
)
from loradex.index.evidence import Evidence, Position, Positions
from loradex.index.filters import Filter
from loradex.index.model import Hit, KnownFile, Model
from loradex.index.opening import AnyZoo, open_or_create_zoo, open_zoo
from loradex.index.sqlite.zoo import Zoo

__all__ = [
    "AnyZoo",
    "BadModel",
    "BadQuery",
    "BadVector",
    "DiskRefused",
    "Evidence",
    "Filter",
    "Hit",
    "KnownFile",
    "Model",
    "ModelMissing",
    "Position",
    "Positions",
    "SpaceMismatch",
    "Zoo",
    "ZooClosed",
    "ZooDamaged",
    "ZooError",
    "ZooExists",
    "ZooLocked",
    "ZooMissing",
    "ZooOutdated",
    "ZooReadOnly",
    "ZooTooNew",
    "ZooUnreachable",
    "open_or_create_zoo",
    "open_zoo",
]
