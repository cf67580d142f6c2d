"""Options of a drawing."""

from dataclasses import dataclass
from typing import Final

from loradex.retrieval.errors import QueryError
from loradex.retrieval.space.text_encoder import to_single_line

DEFAULT_SEED: Final = 20261123  # of the previews of the miniature
MAX_PROMPT_LENGTH: Final = 300  # characters
MAX_STEPS: Final = 50
MAX_STRENGTH: Final = 2.0
MAX_GUIDANCE: Final = 30.0
SIZES: Final = range(64, 1025, 8)  # pixels a side


@dataclass(frozen=True, slots=True)
class DrawOptions:
    """What to draw and how; ``BaseModel.complete_options`` fills in what is not given.

    Attributes:
        prompt: empty for the model's trigger words or, if it has none, the base model's default prompt.
        steps: number of denoising steps.
        guidance: classifier-free guidance scale.
        strength: factor of the model's updates.
        size: pixels a side.

    Raises:
        QueryError: a value is out of range.
    """

    prompt: str = ""
    seed: int = DEFAULT_SEED
    steps: int | None = None
    guidance: float | None = None
    strength: float = 1.0
    size: int | None = None

    def __post_init__(self) -> None:
        """Normalise and check all values."""
        object.__setattr__(self, "prompt", to_single_line(self.prompt))
        # Make strength a float and -0.0 zero, so that equal options have equal cache keys.
        object.__setattr__(self, "strength", self.strength + 0.0)
        if len(self.prompt) > MAX_PROMPT_LENGTH:
            raise QueryError(
                f"prompt: expected at most {MAX_PROMPT_LENGTH} characters, found {len(self.prompt)}; shorten it"
            )
        check_integer("seed", self.seed, 0, 2**32 - 1)
        check_integer("steps", 1 if self.steps is None else self.steps, 1, MAX_STEPS)
        check_range("guidance", 0 if self.guidance is None else self.guidance, 0, MAX_GUIDANCE)
        check_range("strength", self.strength, -MAX_STRENGTH, MAX_STRENGTH)
        if self.size is not None and self.size not in SIZES:
            raise QueryError(
                f"size: expected {SIZES[0]} to {SIZES[-1]} pixels in steps of {SIZES.step}, found {self.size}; choose such a size"
            )


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Check that a number is in a range.

    Raises:
        QueryError: it is out of the range, or NaN.
    """
    if not low <= value <= high:
        raise QueryError(f"{name}: expected {low:.10g} to {high:.10g}, found {value:.10g}; choose a number in between")


def check_integer(name: str, value: int, low: int, high: int) -> None:
    """Check that a number is an integer in a range.

    Raises:
        QueryError: it is not.
    """
    check_range(name, value, low, high)
    if not isinstance(value, int):
        raise QueryError(f"{name}: expected a whole number, found {value:.10g}; leave out the fraction")
