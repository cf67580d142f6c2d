"""What the JSON of a server should be; what is not as expected is left out, and everything is bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

MAX_TEXT = 300  # characters of what is shown
LIKELY = 0.5  # words of weights count as trigger words from here on


def as_list(value: object) -> list[Any]:
    """A list that should be one; empty if it is not."""
    return value if isinstance(value, list) else []


def text_of(value: object, length: int | None = MAX_TEXT) -> str:
    """A text that should be one, on one line and shortened; empty if it is not. Paths are left as they are."""
    if not isinstance(value, str):
        return ""
    return value if length is None else " ".join(value.split())[:length]


def texts_of(value: object) -> list[str]:
    """The texts of a list, at most 20."""
    return [text for each in as_list(value)[:20] if (text := text_of(each))]


def number_of(value: object) -> float | None:
    """A finite number, or None."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) else None  # type: ignore[arg-type]


def share_of(value: object) -> float | None:
    """A probability, or None."""
    number = number_of(value)
    return number if number is not None and 0 <= number <= 1 else None


def words_of(value: object) -> list[tuple[str, float]]:
    """Words with probabilities, at most 20."""
    pairs = [
        (text_of(each.get("word")), share_of(each.get("probability")))
        for each in as_list(value)[:20]
        if isinstance(each, dict)
    ]
    return [(word, probability) for word, probability in pairs if word and probability is not None]


def drawn(hit: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, float | None]]:
    """What a model draws: its labels, else what it was trained on."""
    labels: list[tuple[str, float | None]] = [
        (text_of(pair[0]), share_of(pair[1]))
        for pair in as_list(facts.get("labels"))[:10]
        if isinstance(pair, list) and len(pair) == 2
    ]
    concept = text_of(hit.get("concept"))
    return labels or ([(concept, None)] if concept else [])


def trigger_words(stated: Sequence[str], words: Sequence[tuple[str, float]]) -> list[str]:
    """Trigger words: those that people stated, else those of the weights that are more likely right than wrong."""
    return list(stated) or [word for word, probability in words if probability >= LIKELY]
