"""The errors of zoos, and those that several modules raise with the same message.

ZooError
├── ZooMissing        no zoo in the folder
├── ZooExists         there is a zoo already where a new one was to be created
├── ZooDamaged        the catalogue was not written by Loradex, or is inconsistent
├── ZooTooNew         a later version of Loradex wrote the catalogue
├── ZooLocked         another writer has the zoo open
├── ZooReadOnly       a write to a zoo that is open for reading only, or in a folder that cannot be written
│   └── ZooOutdated   an earlier version of Loradex wrote the catalogue, and it was not migrated
├── ZooUnreachable    the database does not answer, or its client package is not installed
├── ZooClosed         the zoo was used after ``close``
├── DiskRefused       the disk is full, fails, or denies access
├── SpaceMismatch     the zoo is bound to another space
├── ModelMissing      no such model, or it has no vector
├── BadModel          a model that cannot be stored
├── BadVector         a vector that cannot be stored
└── BadQuery          a query that cannot be answered
"""

from typing import Final

from loradex.index.shell import quote_path

RESTORE: Final = "restore it from a copy, or index into a new zoo"  # the advice of errors about damage


class ZooError(Exception):
    """Base of all errors here; its message is one line: what, where, expected, found, how to mend."""


class ZooMissing(ZooError):
    """There is no zoo in the folder."""


class ZooExists(ZooError):
    """There is a zoo in the folder already."""


class ZooDamaged(ZooError):
    """The catalogue was not written by Loradex, or is inconsistent."""


class ZooTooNew(ZooError):
    """A later version of Loradex wrote the catalogue."""


class ZooLocked(ZooError):
    """Another writer has the zoo open."""


class ZooReadOnly(ZooError):
    """The zoo is open for reading only, or its folder cannot be written."""


class ZooOutdated(ZooReadOnly):
    """An earlier version of Loradex wrote the catalogue, and only opening it for writing migrates it."""


class ZooUnreachable(ZooError):
    """The database does not answer, or its client package is not installed."""


class ZooClosed(ZooError):
    """The zoo was used after ``close``."""


class DiskRefused(ZooError):
    """The disk is full, fails, or denies access."""


class SpaceMismatch(ZooError):
    """The zoo is bound to another space; the message holds both names."""


class ModelMissing(ZooError):
    """The zoo has no such model, or the model has no vector."""


class BadModel(ZooError):
    """A model cannot be stored: an empty id, a field of another type, or facts that are not JSON."""


class BadVector(ZooError):
    """A vector cannot be stored: another shape, NaN, infinity, or zero length."""


class BadQuery(ZooError):
    """A query cannot be answered: another shape, NaN, infinity, zero length, or a negative number of hits."""


def closed_error(place: object) -> ZooClosed:
    """The error of using a zoo after ``close``."""
    return ZooClosed(f"{place}: expected an open zoo, found it closed; open it again")


def read_only_error(folder: object) -> ZooReadOnly:
    """The error of writing to a zoo that was opened for reading."""
    return ZooReadOnly(
        f"{folder}: expected a zoo open for writing, found it open for reading only; open it without read_only"
    )


def outdated_error(place: object, folder: object, expected: str, found: object) -> ZooOutdated:
    """The error of reading a zoo that must be migrated first; its message ends in the command that does so."""
    command = f"loradex zoo compact --zoo {quote_path(folder)}"
    return ZooOutdated(f"{place}: expected {expected}, found {found}; migrate it with `{command}`")


def no_model_for_fingerprint(id: str) -> ModelMissing:
    """The error of adding a fingerprint without its model."""
    return ModelMissing(
        f"fingerprint of model {id!r}: expected the model in the zoo, found none; add both in the same call"
    )


def no_model_for_file(path: str, id: str) -> ModelMissing:
    """The error of noting a file before its model was added."""
    return ModelMissing(f"file {path!r}: expected model {id!r} in the zoo, found none; add it first")
