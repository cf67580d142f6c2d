"""Rules that turn a trainer's name of a module into diffusers' names of layers.

Trainers write one path with dots or with underscores. Both are cut into words, whole numbers become ``#``, and the words are
looked up: two rules of one tree never share their words and fixed numbers, so nothing is guessed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Final

Rows = tuple[tuple[int, int], ...]  # pieces of a module's output, from row to row, in this order
Words = tuple[str, tuple[str, ...]]
CACHED_NAMES: Final = 2**14  # files of one folder share most of theirs
LONGEST_NUMBER: Final = 4  # digits


def whole(out: int, width: int) -> list[Rows]:
    """All rows as they are."""
    return [((0, out),)]


def thirds(out: int, width: int) -> list[Rows]:
    """Queries, keys and values of one height."""
    return pieces([out // 3] * 3, out)


def grouped(out: int, width: int) -> list[Rows]:
    """Queries as wide as the input; keys and values share the rest (grouped-query attention)."""
    return pieces([width, (out - width) // 2, (out - width) // 2], out)


def with_mlp(out: int, width: int) -> list[Rows]:
    """Queries, keys and values as wide as the input, and the rest for the feed-forward part."""
    return pieces([width, width, width, out - 3 * width], out)


def swapped(out: int, width: int) -> list[Rows]:
    """Both halves, the second one first: others store shift and scale, diffusers scale and shift."""
    return [] if out % 2 else [((out // 2, out), (0, out // 2))]


def swapped_if_two(out: int, width: int) -> list[Rows]:
    """As ``swapped`` where the module gives a scale and a shift only, else all rows."""
    return swapped(out, width) if out == 2 * width else whole(out, width)


def pieces(heights: Sequence[int], out: int) -> list[Rows]:
    """Rows one after the other, or none where the heights do not make up the output."""
    if min(heights) < 1 or sum(heights) != out:
        return []
    ends = [sum(heights[: i + 1]) for i in range(len(heights))]
    return [((end - height, end),) for height, end in zip(heights, ends, strict=True)]


@dataclass(frozen=True, slots=True)
class Rule:
    """One module as a trainer names it, and what it is in diffusers; ``#`` stands for any number.

    Attributes:
        source: the path of the module, with dots.
        targets: the layers it holds, each of a part of its rows.
        cut: which rows, from the module's shape; an empty answer means that the rule does not fit.
        ratio: what out / in must be, where that tells two trees apart.
    """

    source: str
    targets: tuple[str, ...]
    cut: Callable[[int, int], list[Rows]] = whole
    ratio: Fraction | None = None

    def apply(self, numbers: Sequence[str], shape: tuple[int, int]) -> list[tuple[str, Rows]]:
        """The layers (name, rows) of a module of (out, in), or none where it does not fit."""
        out, width = shape
        if self.ratio is not None and out != self.ratio * width:
            return []
        return [(fill(target, numbers), rows) for target, rows in zip(self.targets, self.cut(out, width), strict=False)]


def rename(prefix: str, target: str, names: Iterable[tuple[str, str]]) -> list[Rule]:
    """Rules for modules that are renamed one to one, below a prefix on each side."""
    return [Rule(prefix + source, (target + name,)) for source, name in names]


def keep(prefix: str, names: str) -> list[Rule]:
    """Rules for modules that have diffusers' names already."""
    return [Rule(prefix + name, (prefix + name,)) for name in names.split()]


@lru_cache(CACHED_NAMES)
def words(path: str) -> Words:
    """The words of a path with its numbers replaced by ``#``, and the numbers."""
    found, numbers = [], []
    for word in path.replace(".", "_").split("_"):
        if word.isdecimal() and word.isascii() and len(word) <= LONGEST_NUMBER and (word == "0" or word[0] != "0"):
            numbers.append(word)
            found.append("#")
        else:
            found.append(word)
    return "_".join(found), tuple(numbers)


def fill(target: str, numbers: Sequence[str]) -> str:
    """The target with its ``#`` replaced, in order."""
    for number in numbers:
        target = target.replace("#", number, 1)
    return target


@dataclass(frozen=True, slots=True)
class Tree:
    """The names of one architecture.

    Attributes:
        name: the family of base models, or of several that share the names.
        rules: how its modules are named.
        widths: of its hidden states; they only break ties between trees.
        blocks: how many blocks there are of a kind, likewise.
    """

    name: str
    rules: tuple[Rule, ...]
    widths: frozenset[int] = frozenset()
    blocks: dict[str, int] = field(default_factory=dict)
    index: dict[str, list[tuple[list[str], Rule]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for rule in self.rules:
            found = [
                word if word.isdecimal() else ""
                for word in rule.source.replace(".", "_").split("_")
                if word == "#" or word.isdecimal()
            ]
            key = "_".join("#" if word.isdecimal() else word for word in rule.source.replace(".", "_").split("_"))
            self.index.setdefault(key, []).append((found, rule))

    def find(self, found: Words, shape: tuple[int, int]) -> list[tuple[str, Rows]]:
        """The layers of a module that was cut into words, or none."""
        key, numbers = found
        for fixed, rule in self.index.get(key, ()):
            if all(want in ("", number) for want, number in zip(fixed, numbers, strict=True)):
                layers = rule.apply([number for want, number in zip(fixed, numbers, strict=True) if not want], shape)
                if layers:
                    return layers
        return []
