"""Filters on models, validated here and translated to a query by each store."""

from dataclasses import dataclass
from typing import Final

from loradex.index.errors import BadQuery
from loradex.index.evidence import PLACED, Evidence

MAX_VALUES: Final = 100
MAX_CHARACTERS: Final = 4096  # of a value


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that a model must all meet; an empty or None condition allows every model.

    Attributes:
        families: the model's family is one of these.
        formats: the format of the model's file is one of these.
        tags: the model has each of these tags or trigger words, in upper or lower case.
        lowest_rank, highest_rank: bounds of the model's highest rank, both inclusive.
        folder: one of the model's files is below this folder, at any depth.
        added_from, added_before: when the model was first added, in seconds since 1970.
        found_by: the model is known by one of these kinds of evidence, which alone count in a search; a model is known
            by metadata if it has no position.
    """

    families: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    lowest_rank: int | None = None
    highest_rank: int | None = None
    folder: str | None = None
    added_from: int | None = None
    added_before: int | None = None
    found_by: tuple[Evidence, ...] = ()

    def __bool__(self) -> bool:
        """Whether any condition is set."""
        return self != Filter()

    def check(self) -> None:
        """Check the values.

        Raises:
            BadQuery: there are too many values, or a value is too long or not a string, integer or ``Evidence``.
        """
        texts = [*self.families, *self.formats, *self.tags, self.folder or ""]
        bounds = (self.lowest_rank, self.highest_rank, self.added_from, self.added_before)
        numbers = [bound for bound in bounds if bound is not None]
        if len(texts) > MAX_VALUES or any(not isinstance(text, str) or len(text) > MAX_CHARACTERS for text in texts):
            raise BadQuery(
                f"filter: expected at most {MAX_VALUES} texts of {MAX_CHARACTERS} characters, found more or longer ones; use fewer"
            )
        if any(type(number) is not int or not -(2**62) < number < 2**62 for number in numbers):
            raise BadQuery(f"filter: expected whole numbers as bounds, found {numbers!r}; correct the filter")
        if not isinstance(self.found_by, tuple) or any(kind not in tuple(Evidence) for kind in self.found_by):
            raise BadQuery(
                f"filter: expected models found by {', '.join(Evidence)}, found {self.found_by!r}; choose among them"
            )

    @property
    def kinds(self) -> tuple[Evidence, ...]:
        """The kinds of evidence whose positions count in a search."""
        return tuple(kind for kind in PLACED if kind in self.found_by) if self.found_by else PLACED


def folder_range(folder: str) -> tuple[str, str]:
    """Return texts from which, and before which, the paths below a folder sort; they all begin with the first."""
    separator = "\\" if "\\" in folder and "/" not in folder else "/"
    bare = folder.rstrip("/\\")
    return bare + separator, bare + chr(ord(separator) + 1)
