"""Problems of a LoRA file: one line for each kind of part that is skipped, or read with a doubt."""

from collections.abc import Mapping, Sequence
from typing import Final

MAX_SHOWN_LENGTH: Final = 160
QUANTISED: Final = "quantised"
ODD_NUMBERS: Final = "numbers of 4 or 6 bits, or complex ones"
SKIPPED: Final = {
    "magnitude": "DoRA's magnitudes of {} layers need the base model; only the low-rank part is read",
    "a1": "GLoRA's products of {} layers need the base model; only the low-rank part beside them is read",
    "bias": "biases of {} layers are not read",
    "norm": "changes of {} norms are not read",
    "replacement": "replaced weights of {} layers need the base model and are not read",
    "embedding": "{} embeddings are not read",
    "diff": "full differences of {} layers beside a LoRA are not read",
    "adapter": "{} layers belong to further adapters, which are not read",
    "too large": "{} layers of too large a rank are not read",
    QUANTISED: "quantised factors of {} layers are not read, as their scales stand beside them or nowhere",
    ODD_NUMBERS: f"{{}} layers of {ODD_NUMBERS} are not read",
}
SKIPPED_OTHER: Final = "{} of {{}} layers: needs the base model and is not read"


def printable(name: str) -> str:
    """A name from a file as messages show it: cut to a bound, and on one line."""
    return name[:MAX_SHOWN_LENGTH] if name.isprintable() else ascii(name[:MAX_SHOWN_LENGTH])


def describe_problems(
    skipped: Mapping[str, set[str]],
    unrecognized: Sequence[str],
    untranslated: Sequence[str],
    duplicates: Sequence[str],
) -> list[str]:
    """Describe each kind of problem in one line.

    Args:
        skipped: by kind of part, the modules that have it.
        unrecognized: tensors that belong to no known format.
        untranslated: layers whose names have no translation.
        duplicates: layers that the file holds twice.
    """
    lines = [SKIPPED.get(kind, SKIPPED_OTHER.format(kind)).format(len(modules)) for kind, modules in skipped.items()]
    if duplicates:
        lines.append(
            f"{len(duplicates)} layers stand in the file twice, such as {printable(duplicates[0])}; one of each is read"
        )
    if untranslated:
        lines.append(f"{len(untranslated)} layers keep the file's own names, such as {printable(untranslated[0])}")
    if unrecognized:
        lines.append(f"{len(unrecognized)} tensors are not understood, such as {printable(unrecognized[0])}")
    return lines
