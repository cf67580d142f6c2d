"""Rules that translate a trainer's name of a module into diffusers' names of layers.

Trainers write the same path with dots or with underscores. Both are split at dots and underscores, numbers are replaced
by ``#``, and the resulting pattern is looked up. No two rules of an architecture share a pattern and its fixed numbers,
so nothing is guessed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Final

RowRanges = tuple[
    tuple[int, int], ...
]  # (start, end) of rows of a module's output, in the order in which a layer takes them
SplitPath = tuple[str, tuple[str, ...]]  # pattern, numbers
CACHED_NAMES: Final = 2**14  # the files of a folder have most names in common
MAX_DIGITS: Final = 4  # of a number in a path


def all_rows(out: int, width: int) -> list[RowRanges]:
    """One layer of all rows."""
    return [((0, out),)]


def split_qkv(out: int, width: int) -> list[RowRanges]:
    """Queries, keys and values of the same number of rows."""
    return consecutive_rows([out // 3] * 3, out)


def split_grouped_qkv(out: int, width: int) -> list[RowRanges]:
    """Queries as wide as the input; keys and values share the rest (grouped-query attention)."""
    return consecutive_rows([width, (out - width) // 2, (out - width) // 2], out)


def split_qkv_mlp(out: int, width: int) -> list[RowRanges]:
    """Queries, keys and values as wide as the input, and the feed-forward part of the rest."""
    return consecutive_rows([width, width, width, out - 3 * width], out)


def swap_halves(out: int, width: int) -> list[RowRanges]:
    """One layer with the second half first: others store shift and scale, diffusers stores scale and shift."""
    return [] if out % 2 else [((out // 2, out), (0, out // 2))]


def swap_halves_of_two(out: int, width: int) -> list[RowRanges]:
    """As ``swap_halves`` if the module outputs a scale and a shift only, else all rows."""
    return swap_halves(out, width) if out == 2 * width else all_rows(out, width)


def consecutive_rows(heights: Sequence[int], out: int) -> list[RowRanges]:
    """Layers of consecutive rows; empty if the heights do not add up to the output."""
    if min(heights) < 1 or sum(heights) != out:
        return []
    ends = [sum(heights[: i + 1]) for i in range(len(heights))]
    return [((end - height, end),) for height, end in zip(heights, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class Rule:
    """The translation of one module's name; ``#`` stands for any number.

    Attributes:
        source: the path of the module, with dots.
        targets: the layers that it holds.
        split: from the module's (out, in), the rows of each layer; empty if the rule does not fit.
        ratio: out / in of the module, where that tells two architectures apart.
    """

    source: str
    targets: tuple[str, ...]
    split: Callable[[int, int], list[RowRanges]] = all_rows
    ratio: Fraction | None = None

    def apply(self, numbers: Sequence[str], shape: tuple[int, int]) -> list[tuple[str, RowRanges]]:
        """The layers (name, rows) of a module of shape (out, in); empty if the rule does not fit."""
        out, width = shape
        if self.ratio is not None and out != self.ratio * width:
            return []
        layers = zip(self.targets, self.split(out, width), strict=False)
        return [(fill_numbers(target, numbers), rows) for target, rows in layers]


def rename(prefix: str, target: str, names: Iterable[tuple[str, str]]) -> list[Rule]:
    """Rules for modules that are renamed one to one, with a prefix for each side."""
    return [Rule(prefix + source, (target + name,)) for source, name in names]


def keep(prefix: str, names: str) -> list[Rule]:
    """Rules for modules that have diffusers' names already."""
    return [Rule(prefix + name, (prefix + name,)) for name in names.split()]


@lru_cache(CACHED_NAMES)
def split_path(path: str) -> SplitPath:
    """Split a path into its pattern, with ``_`` between the words and ``#`` for each number, and the numbers."""
    words, numbers = [], []
    for word in path.replace(".", "_").split("_"):
        if word.isdecimal() and word.isascii() and len(word) <= MAX_DIGITS and (word == "0" or word[0] != "0"):
            numbers.append(word)
            words.append("#")
        else:
            words.append(word)
    return "_".join(words), tuple(numbers)


def fill_numbers(target: str, numbers: Sequence[str]) -> str:
    """Replace each ``#`` of a target by a number, in order."""
    for number in numbers:
        target = target.replace("#", number, 1)
    return target


@dataclass(frozen=True, slots=True)
class Architecture:
    """The layer names of an architecture.

    Attributes:
        name: the family of base models, or "unet" for all families that share its names.
        rules: the translations of its modules' names.
        rules_by_pattern: (fixed numbers, rule) by the pattern of the rule's source; "" stands for a number that is not
            fixed.
    """

    name: str
    rules: tuple[Rule, ...]
    rules_by_pattern: dict[str, list[tuple[list[str], Rule]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for rule in self.rules:
            words = rule.source.replace(".", "_").split("_")
            fixed = [word if word.isdecimal() else "" for word in words if word == "#" or word.isdecimal()]
            pattern = "_".join("#" if word.isdecimal() else word for word in words)
            self.rules_by_pattern.setdefault(pattern, []).append((fixed, rule))

    def translate(self, path: SplitPath, shape: tuple[int, int]) -> list[tuple[str, RowRanges]]:
        """The layers (name, rows) of a module of shape (out, in); empty if no rule fits."""
        pattern, numbers = path
        for fixed_numbers, rule in self.rules_by_pattern.get(pattern, ()):
            pairs = list(zip(fixed_numbers, numbers, strict=True))
            if all(fixed in ("", number) for fixed, number in pairs):
                layers = rule.apply([number for fixed, number in pairs if not fixed], shape)
                if layers:
                    return layers
        return []
