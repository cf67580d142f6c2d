"""Errors of drawing, besides those of reading the model's file.

NoBase           no base model of the file's family is at hand (``loradex.app.bases``)
DrawingError
├── BadBase      a base model cannot be loaded, or cannot draw
├── Busy         too many drawings wait already
├── TooSlow      a drawing took longer than its timeout
└── Stopped      a drawing was stopped by the user
"""

from loradex.app.bases import NoBase
from loradex.retrieval.errors import LoradexError

__all__ = ["BadBase", "Busy", "DrawingError", "NoBase", "Stopped", "TooSlow"]


class DrawingError(LoradexError):
    """Base class of these errors; the message is one line: what, expected, found, how to mend."""


class BadBase(DrawingError):
    """The base model cannot be loaded, or cannot draw."""


class Busy(DrawingError):
    """Too many drawings wait already."""


class TooSlow(DrawingError):
    """The drawing took longer than its timeout."""


class Stopped(DrawingError):
    """The drawing was stopped by the user."""
