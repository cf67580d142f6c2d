"""A model of a zoo as JSON, and where its file lies."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from loradex.index import Model


def described(model: Model, zoo: str) -> dict[str, Any]:
    """A model of a zoo as JSON has it."""
    return asdict(model) | {"path": path_of(model, zoo)}


def path_of(model: Model, zoo: str) -> str | None:
    """Where a model's file lies, seen from anywhere."""
    if model.path is None or "://" in model.path:
        return model.path
    return str((Path(zoo) / model.path).resolve())
