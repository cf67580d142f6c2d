"""How something is to be drawn."""

from dataclasses import dataclass
from typing import Final

from loradex.retrieval.errors import QueryError
from loradex.retrieval.space.text_encoder import printable

SEED: Final = 20261123  # of the miniature's drawings
LONGEST_PROMPT: Final = 300  # characters
MOST_STEPS: Final = 50
STRONGEST: Final = 2.0
MOST_GUIDANCE: Final = 30.0
SIZES: Final = range(64, 1025, 8)  # pixels a side


@dataclass(frozen=True, slots=True)
class Wish:
    """What to draw and how; what is left out is as the base model, or the file, has it.

    Attributes:
        prompt: the model's trigger words, or the base's own prompt, where it is empty.
        strength: what the model's updates are multiplied by.
        size: pixels a side.

    Raises:
        QueryError: a value is out of bounds.
    """

    prompt: str = ""
    seed: int = SEED
    steps: int | None = None
    guidance: float | None = None
    strength: float = 1.0
    size: int | None = None

    def __post_init__(self) -> None:
        """Check every bound."""
        object.__setattr__(self, "prompt", printable(self.prompt))
        object.__setattr__(
            self, "strength", self.strength + 0.0
        )  # a float, and no negative zero: equal wishes have equal keys
        if len(self.prompt) > LONGEST_PROMPT:
            raise QueryError(
                f"prompt: expected at most {LONGEST_PROMPT} characters, found {len(self.prompt)}; say it shorter"
            )
        check_whole("seed", self.seed, 0, 2**32 - 1)
        check_whole("steps", 1 if self.steps is None else self.steps, 1, MOST_STEPS)
        check("guidance", 0 if self.guidance is None else self.guidance, 0, MOST_GUIDANCE)
        check("strength", self.strength, -STRONGEST, STRONGEST)
        if self.size is not None and self.size not in SIZES:
            raise QueryError(
                f"size: expected {SIZES[0]} to {SIZES[-1]} pixels in steps of {SIZES.step}, found {self.size}; choose such a size"
            )


def check(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number that is out of bounds.

    Raises:
        QueryError: it is, or is no number.
    """
    if not low <= value <= high:
        raise QueryError(f"{name}: expected {low:.10g} to {high:.10g}, found {value:.10g}; choose a number in between")


def check_whole(name: str, value: int, low: int, high: int) -> None:
    """Refuse a number that is out of bounds or not whole.

    Raises:
        QueryError: it is.
    """
    check(name, value, low, high)
    if not isinstance(value, int):
        raise QueryError(f"{name}: expected a whole number, found {value:.10g}; leave out the fraction")
