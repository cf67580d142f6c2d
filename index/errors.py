"""Every error that a zoo can end in.

ZooError
├── ZooMissing        no zoo in the folder
├── ZooExists         a zoo is there already, where a new one was to be made
├── ZooDamaged        the catalogue is not one of Loradex, or contradicts itself
├── ZooTooNew         a later Loradex wrote the catalogue
├── ZooLocked         another writer has the zoo open
├── ZooReadOnly       a write to a zoo that is open for reading only, or in a folder that cannot be written
├── ZooUnreachable    the database that holds the zoo does not answer, or the package that asks it is not installed
├── ZooClosed         the zoo was used after ``close``
├── DiskRefused       the disk is full, fails, or denies access
├── SpaceMismatch     the zoo is bound to another space
├── ModelMissing      no such model, or it has no vector
├── BadModel          a model that cannot be stored
├── BadVector         a vector that cannot be stored
└── BadQuery          a query that cannot be answered
"""

from typing import Final

RESTORE: Final = "restore it from a copy, or index into a new zoo"  # how to mend what is damaged


class ZooError(Exception):
    """Root of the tree; its message is one line: what, where, expected, found, how to mend."""


class ZooMissing(ZooError):
    """There is no zoo in the folder."""


class ZooExists(ZooError):
    """There is a zoo in the folder already."""


class ZooDamaged(ZooError):
    """The catalogue is not one of Loradex, or contradicts itself."""


class ZooTooNew(ZooError):
    """A later Loradex wrote the catalogue."""


class ZooLocked(ZooError):
    """Another writer has the zoo open."""


class ZooReadOnly(ZooError):
    """The zoo is open for reading only, or its folder cannot be written."""


class ZooUnreachable(ZooError):
    """The database that holds the zoo does not answer, or the package that asks it is not installed."""


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
