"""A model of a zoo as a JSON document, the path of its file, and in words how it is known."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from loradex.index import Evidence, Model

NO_EXPERT: Final = "no_expert"  # the fact that says why no expert has read a model
FROM_WEIGHTS: Final = (Evidence.PICTURE, Evidence.WORDS)  # the kinds that files with the same update share
# After "found by" and "known by".
EVIDENCE_WORDS: Final[Mapping[Evidence, str]] = {
    Evidence.PICTURE: "what it draws",
    Evidence.WORDS: "words in its weights",
    Evidence.PREVIEW: "its preview",
    Evidence.METADATA: "name or tags",
}


def model_document(model: Model, zoo: str) -> dict[str, Any]:
    """Return a model as a JSON document; ``zoo`` is the folder of its zoo."""
    kinds = {"found_by": str(model.found_by), "evidence": list(map(str, model.evidence))}
    return asdict(model) | kinds | {"path": model_path(model, zoo)}


def model_path(model: Model, zoo: str) -> str | None:
    """Return the absolute path, or the address, of a model's file; None if the zoo does not know it."""
    return None if model.path is None else absolute_path(model.path, zoo)


def absolute_path(path: str, zoo: str) -> str:
    """Return the absolute path of a file that a zoo names, or its address."""
    return path if "://" in path else str((Path(zoo) / path).resolve())


def stored_pairs(model: Model, fact: str) -> list[tuple[str, float]]:
    """A fact of a model that is a list of names with probabilities; a zoo may hold any JSON there."""
    stored = model.facts.get(fact)
    pairs = [pair for pair in stored if isinstance(pair, list) and len(pair) == 2] if isinstance(stored, list) else []
    return [(str(name), float(share)) for name, share in pairs if isinstance(share, int | float) and 0 <= share <= 1]


def stored_words(model: Model) -> list[tuple[str, float]]:
    """The words that a model was trained with as read from its weights, with their probabilities, best first."""
    return stored_pairs(model, "words")


def words_document(model: Model) -> list[dict[str, Any]]:
    """Return the words that a model was trained with as a JSON document."""
    return [{"word": word, "probability": probability} for word, probability in stored_words(model)]


def known_by(model: Model) -> str:
    """Return in words how a model is known."""
    return evidence_words(model.evidence or (Evidence.METADATA,))


def evidence_words(kinds: Iterable[str]) -> str:
    """Return kinds of evidence in words, to follow "found by" or "known by"."""
    return ", ".join(EVIDENCE_WORDS[Evidence(kind)] for kind in kinds)
