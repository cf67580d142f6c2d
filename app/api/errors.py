"""Errors of the API's own, and the HTTP status of every error."""

from typing import Final

from loradex.app.backend import RunUnderWay
from loradex.index.errors import BadQuery, DiskRefused, ModelMissing, ZooClosed, ZooError, ZooLocked, ZooUnreachable
from loradex.retrieval.errors import FileError, LoradexError, NoExpert, QueryError

Errors = tuple[type[Exception], ...]


class DrawingMissing(LoradexError):
    """A model has no drawing."""


class TooLarge(LoradexError):
    """An upload is larger than what is taken, or there are too many."""


class Busy(LoradexError):
    """So much is asked for at once that some of it is refused."""


STATUS: Final[tuple[tuple[int, Errors], ...]] = (  # the first that fits
    (503, (Busy, ZooLocked, ZooClosed, ZooUnreachable)),
    (409, (RunUnderWay,)),
    (404, (ModelMissing, DrawingMissing)),
    (413, (TooLarge,)),
    (422, (QueryError, FileError, NoExpert, BadQuery)),
)
RETRY_AFTER: Final = 2  # seconds


def status_of(error: Exception) -> int:
    """The HTTP status of an error; 500 for what only those who run the server can mend."""
    return next((status for status, kinds in STATUS if isinstance(error, kinds)), 500)


def typed(error: OSError) -> ZooError:
    """An error of the system as one of the tree, without the path that it happened at."""
    return DiskRefused(
        f"server: expected a disk that works, found: {error.strerror or type(error).__name__}; check its free space and access rights"
    )
