"""How an expert was made, as its checkpoint tells it."""

from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Final, Self

TRAINED: Final = "trained"  # on LoRAs that people trained
GROWN: Final = "grown"  # from the base model alone
MAX_TEXT: Final = 200  # characters
MAX_COUNT: Final = 2**40
FINGERPRINT_SHOWN: Final = 12  # characters


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an expert was made; dates are left out, so that equal experts have equal checkpoints.

    Attributes:
        made: ``trained`` or ``grown``.
        family: of the base model.
        fingerprint: of the base model (``BaseModel.fingerprint``); None if it was not at hand.
        loras: how many labelled LoRAs it was fitted to, beside grown files.
        words: how many words it was grown from.
        steps: of each grown file: 0 for gradients, else those of a short training; None if nothing was grown.
        samples: of noise and time step for each grown gradient; None if there were none.
        loradex: the version of Loradex.
    """

    made: str
    family: str
    fingerprint: str | None = None
    loras: int = 0
    words: int = 0
    steps: int | None = None
    samples: int | None = None
    loradex: str = version("loradex")

    def document(self) -> dict[str, Any]:
        """The provenance as JSON."""
        return asdict(self)

    @property
    def in_words(self) -> str:
        """How the expert was made, in one phrase."""
        parts = [f"{count:,} {of}" for count, of in ((self.words, "words"), (self.loras, "LoRAs")) if count]
        parts += [f"{self.steps} steps"] if self.steps else []
        parts += [f"{self.samples} samples"] if self.samples else []
        fingerprint = f" {self.fingerprint[:FINGERPRINT_SHOWN]}" if self.fingerprint else ""
        return f"{self.made} from {', '.join([*parts, f'base {self.family}{fingerprint}'])}"

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read what ``document`` made; unknown members are ignored.

        Raises:
            ValueError: it has another form.
        """
        match value:
            case {"made": "trained" | "grown" as made, "family": str(family), "loradex": str(loradex)}:
                fingerprint = value.get("fingerprint")
                texts = (family, loradex, *([] if fingerprint is None else [fingerprint]))
                counts = [value.get(name, 0) for name in ("loras", "words")]
                optional = [value.get(name) for name in ("steps", "samples")]
                numbers = (*counts, *(number for number in optional if number is not None))
                if all(map(is_plain_text, texts)) and all(map(is_count, numbers)):
                    return cls(made, family, fingerprint, counts[0], counts[1], optional[0], optional[1], loradex)
        raise ValueError(f"a provenance {ascii(value)[:80]}")


def is_plain_text(value: Any, longest: int = MAX_TEXT) -> bool:
    """Whether a value is a text of at most ``longest`` characters, none of them a control character."""
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0."""
    return type(value) is int and 0 <= value <= MAX_COUNT
