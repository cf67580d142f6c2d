"""Errors of growing."""

from loradex.retrieval.errors import LoradexError


class GrowError(LoradexError):
    """An expert cannot be grown; what was made is kept, and the next run goes on from there."""
