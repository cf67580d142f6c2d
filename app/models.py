"""A model of a zoo as a JSON document, and the path of its file."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from loradex.index import Model


def model_document(model: Model, zoo: str) -> dict[str, Any]:
    """Return a model as a JSON document; ``zoo`` is the folder of its zoo."""
    return asdict(model) | {"path": model_path(model, zoo)}


def model_path(model: Model, zoo: str) -> str | None:
    """Return the absolute path, or the address, of a model's file; None if the zoo does not know it."""
    if model.path is None or "://" in model.path:
        return model.path
    return str((Path(zoo) / model.path).resolve())
