"""Which models a search may answer with."""

from dataclasses import dataclass
from typing import Final

from loradex.index.errors import BadQuery
from loradex.index.model import FoundBy
from loradex.index.sqlite.rows import tag_of, to_text

MOST_VALUES: Final = 100
LONGEST: Final = 4096  # characters of a value


@dataclass(frozen=True, slots=True)
class Filter:
    """What all of a model's facts must meet; what is empty or None asks for nothing.

    Attributes:
        families: model trees, of which one must be the model's.
        formats: ways to write a LoRA, of which one must be the model's.
        tags: tags or trigger words, each of which the model must have, in any case.
        lowest_rank, highest_rank: bounds of the model's highest rank, both included.
        folder: a folder that holds one of the model's files, at any depth.
        added_from, added_before: when the zoo took the model first, in seconds since 1970.
        found_by: what the model's place rests on.
    """

    families: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    lowest_rank: int | None = None
    highest_rank: int | None = None
    folder: str | None = None
    added_from: int | None = None
    added_before: int | None = None
    found_by: FoundBy | None = None

    def __bool__(self) -> bool:
        """Whether it asks for anything."""
        return self != Filter()

    def sql(self) -> tuple[str, list[str | int | bytes | None]]:
        """A condition on ``models``, and its values.

        Raises:
            BadQuery: a list is too long, or a value is no text or number that SQLite takes.
        """
        self.check()
        parts, values = ["TRUE"], list[str | int | bytes | None]()
        for column, wanted in (("family", self.families), ("format", self.formats)):
            if wanted:
                parts.append(f"models.{column} IN ({', '.join('?' * len(wanted))})")
                values += map(to_text, wanted)
        for tag in self.tags:
            parts.append("models.key IN (SELECT key FROM tags WHERE tag = ?)")
            values.append(tag_of(tag))
        bounds = (
            ("rank", ">=", self.lowest_rank),
            ("rank", "<=", self.highest_rank),
            ("added", ">=", self.added_from),
            ("added", "<", self.added_before),
        )
        for column, sign, bound in bounds:
            if bound is not None:
                parts.append(f"models.{column} {sign} ?")
                values.append(bound)
        if self.found_by is not None:
            parts.append("models.found_by = ?")
            values.append(str(self.found_by))
        if self.folder is not None:
            ends = ends_of(self.folder)
            bounds_of_path = (
                "(path >= ? AND path < ? OR path >= ? AND path < ?)"  # text, and bytes where it is no Unicode
            )
            parts.append(
                f"({bounds_of_path.replace('path', 'models.path')} OR models.key IN (SELECT key FROM files WHERE {bounds_of_path}))"
            )
            values += [*map(to_text, ends), *(end.encode("utf-8", "surrogatepass") for end in ends)] * 2
        return " AND ".join(parts), values

    def check(self) -> None:
        """Refuse what no zoo takes.

        Raises:
            BadQuery: a list is too long, or a value is no text, number or ``FoundBy``.
        """
        texts = [*self.families, *self.formats, *self.tags, self.folder or ""]
        numbers = [
            bound
            for bound in (self.lowest_rank, self.highest_rank, self.added_from, self.added_before)
            if bound is not None
        ]
        if len(texts) > MOST_VALUES or any(not isinstance(text, str) or len(text) > LONGEST for text in texts):
            raise BadQuery(
                f"filter: expected at most {MOST_VALUES} texts of {LONGEST} characters, found more or longer ones; ask for fewer"
            )
        if any(type(bound) is not int or not -(2**62) < bound < 2**62 for bound in numbers):
            raise BadQuery(f"filter: expected whole numbers as bounds, found {numbers!r}; mend the filter")
        if self.found_by not in (None, *FoundBy):
            raise BadQuery(
                f"filter: expected models found by {' or '.join(FoundBy)}, found {self.found_by!r}; choose one of them"
            )


def ends_of(folder: str) -> tuple[str, str]:
    """The texts from which and before which the paths below a folder lie; the first is also how each of them begins."""
    separator = "\\" if "\\" in folder and "/" not in folder else "/"
    bare = folder.rstrip("/\\")
    return bare + separator, bare + chr(ord(separator) + 1)
