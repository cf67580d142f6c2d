"""Every error that a drawing can end in, besides those of reading its file.

DrawingError
├── NoBase       no base model of the file's family is at hand
├── BadBase      a folder named as a base model that cannot be loaded or cannot draw
├── Busy         too many drawings wait already
├── TooSlow      a drawing took longer than it may
└── Stopped      whoever asked for the drawing stopped it
"""

from loradex.retrieval.errors import LoradexError


class DrawingError(LoradexError):
    """Root of the tree; its message is one line: what, expected, found, how to mend."""


class NoBase(DrawingError):
    """No base model of the file's family is at hand."""


class BadBase(DrawingError):
    """The base model cannot be loaded, or cannot draw."""


class Busy(DrawingError):
    """Too many drawings wait already."""


class TooSlow(DrawingError):
    """The drawing took longer than it may."""


class Stopped(DrawingError):
    """The drawing was stopped by whoever asked for it."""
