"""The words of a text that a full-text search looks up."""

import re
from typing import Final

MAX_WORDS: Final = 32
MAX_CHARACTERS: Final = 1000  # of a text that are read
WORD: Final = re.compile(r"[\w\u0300-\u036f]+")  # with the combining marks of the letter before
STOP_WORDS: Final = set(
    "a an and as at be by for from in into is it its of off on or over some something that the their this to under up with".split()  # noqa: SIM905
)


def query_words(text: str) -> list[str]:
    """Return the words of a text as they are written, without stop words."""
    words = WORD.findall(text[:MAX_CHARACTERS])
    return [word for word in words if word.strip("_") and word.lower() not in STOP_WORDS][:MAX_WORDS]
