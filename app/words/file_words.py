"""The words of one file, and their JSON."""

from dataclasses import dataclass
from typing import Any

from loradex.retrieval.words import MIN_PROBABILITY, Word


@dataclass(frozen=True, slots=True)
class FileWords:
    """The words that one file was trained with.

    Attributes:
        readable: whether words can be read from the file, be there any or not.
        reason: why there are none, in one line; None if there are some.
        words: best first, also unlikely ones.
        nothing: the probability that there are no words to be read; None if the file is not readable.
    """

    file: str
    family: str
    readable: bool
    reason: str | None = None
    words: tuple[Word, ...] = ()
    nothing: float | None = None

    @property
    def likely(self) -> tuple[Word, ...]:
        """The words that are more likely right than wrong, which are shown as trigger words; best first."""
        return tuple(word for word in self.words if word.probability >= MIN_PROBABILITY)

    def as_json(self) -> dict[str, Any]:
        """One result of ``loradex words --json``."""
        words = [
            {"word": word.word, "score": round(word.score, 6), "probability": round(word.probability, 6)}
            for word in self.words
        ]
        return {
            "file": self.file,
            "family": self.family,
            "readable": self.readable,
            "reason": self.reason,
            "words": words,
            "nothing": None if self.nothing is None else round(self.nothing, 6),
        }
