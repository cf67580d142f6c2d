"""Errors of drawing, besides those of reading the model's file.

DrawingError
├── NoBase       no base model of the file's family is available
├── BadBase      a base model cannot be loaded, or cannot draw
├── Busy         too many drawings wait already
├── TooSlow      a drawing took longer than its timeout
└── Stopped      a drawing was stopped by the user
"""

from loradex.retrieval.errors import LoradexError


class DrawingError(LoradexError):
    """Base class of these errors; the message is one line: what, expected, found, how to mend."""


class NoBase(DrawingError):
    """No base model of the file's family is available."""


class BadBase(DrawingError):
    """The base model cannot be loaded, or cannot draw."""


class Busy(DrawingError):
    """Too many drawings wait already."""


class TooSlow(DrawingError):
    """The drawing took longer than its timeout."""


class Stopped(DrawingError):
    """The drawing was stopped by the user."""
