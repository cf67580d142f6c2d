"""Errors of the API itself, and the HTTP status of every error."""

from typing import Final

from loradex.app.backend import RunUnderWay, TooManyRuns
from loradex.index.errors import BadQuery, DiskRefused, ModelMissing, ZooClosed, ZooError, ZooLocked, ZooUnreachable
from loradex.retrieval.errors import FileError, LoradexError, NoExpert, QueryError

ErrorTypes = tuple[type[Exception], ...]


class DrawingMissing(LoradexError):
    """A model has no preview."""


class TooLarge(LoradexError):
    """An upload is too large, or holds too many files or fields."""


class Busy(LoradexError):
    """Too many requests at a time."""


STATUS: Final[tuple[tuple[int, ErrorTypes], ...]] = (  # the first match counts
    (503, (Busy, TooManyRuns, ZooLocked, ZooClosed, ZooUnreachable)),
    (409, (RunUnderWay,)),
    (404, (ModelMissing, DrawingMissing)),
    (413, (TooLarge,)),
    (422, (QueryError, FileError, NoExpert, BadQuery)),
)
RETRY_AFTER: Final = 2  # seconds


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error; 500 for those that only the operator of the server can mend."""
    return next((status for status, types in STATUS if isinstance(error, types)), 500)


def disk_error(error: OSError) -> ZooError:
    """Turn an OSError into a DiskRefused whose message does not reveal the path."""
    return DiskRefused(
        f"server: expected a disk that works, found: {error.strerror or type(error).__name__}; check its free space and access rights"
    )
