"""What of a file is not read, or read with a doubt: short lines for people."""

from collections.abc import Mapping, Sequence
from typing import Final

LONGEST_SHOWN: Final = 160
STRANGE_NUMBERS: Final = "numbers of 4 or 6 bits, or complex ones"
UNREAD: Final = {
    "magnitude": "DoRA's magnitudes of {} layers need the base model; only the low-rank part is read",
    "a1": "GLoRA's products of {} layers need the base model; only the low-rank part beside them is read",
    "bias": "biases of {} layers are not read",
    "norm": "changes of {} norms are not read",
    "replacement": "replaced weights of {} layers need the base model and are not read",
    "embedding": "{} embeddings are not read",
    "diff": "full differences of {} layers beside a LoRA are not read",
    "adapter": "{} layers belong to further adapters, which are not read",
    "too large": "{} layers of too large a rank are not read",
    STRANGE_NUMBERS: f"{{}} layers of {STRANGE_NUMBERS} are not read",
}
OTHERS: Final = "{} of {{}} layers: needs the base model and is not read"


def shown(name: str) -> str:
    """A name from a file for a message: short, and on one line."""
    return name[:LONGEST_SHOWN] if name.isprintable() else ascii(name[:LONGEST_SHOWN])


def describe(
    unread: Mapping[str, set[str]], unknown: Sequence[str], strange: Sequence[str], twice: Sequence[str]
) -> list[str]:
    """One line for each kind of problem.

    Args:
        unread: a kind of part -> the modules that have it.
        unknown: tensors that no rule knows.
        strange: layers whose names no rule knows.
        twice: layers that the file has twice.
    """
    lines = [UNREAD.get(kind, OTHERS.format(kind)).format(len(modules)) for kind, modules in unread.items()]
    if twice:
        lines.append(f"{len(twice)} layers stand in the file twice, such as {shown(twice[0])}; one of each is read")
    if strange:
        lines.append(f"{len(strange)} layers keep the file's own names, such as {shown(strange[0])}")
    if unknown:
        lines.append(f"{len(unknown)} tensors are not understood, such as {shown(unknown[0])}")
    return lines
