"""One service for all tests of a process: its readers of words take seconds to load."""

from functools import cache

from loradex.app.bases import Bases
from loradex.app.words import WordsService


@cache
def shared_service() -> WordsService:
    """A service with the base models that ship."""
    return WordsService(Bases({}, ()))
