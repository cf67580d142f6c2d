"""Words that people type, as a query of SQLite's full-text search (https://sqlite.org/fts5.html, section 3)."""

from collections.abc import Sequence
from typing import Final

from loradex.index.sqlite.rows import WORD

MOST_WORDS: Final = 32
LONGEST: Final = 1000  # characters of a text that are read
STOP_WORDS: Final = set(
    "a an and as at be by for from in into is it its of off on or over some something that the their this to under up with".split()  # noqa: SIM905
)


def words_query(texts: Sequence[str], without: Sequence[str] = ()) -> str | None:
    """What has every word of one of some texts, but not all words of one of others; None where no word is left to look for."""
    wanted = [found for found in map(every_word, texts) if found]
    if not wanted:
        return None
    refused = [found for found in map(every_word, without) if found]
    query = " OR ".join(f"({found})" for found in wanted)
    return f"({query}) NOT ({' OR '.join(f'({found})' for found in refused)})" if refused else query


def every_word(text: str) -> str:
    """All words of a text but those that say little, each as a string that holds no operator; FTS5 folds their case as it did the models'."""
    return " AND ".join(f'"{word}"' for word in said_words(text))


def said_words(text: str) -> list[str]:
    """The words of a text, as they are written, but those that say little."""
    return [word for word in WORD.findall(text[:LONGEST]) if word.strip("_") and word.lower() not in STOP_WORDS][
        :MOST_WORDS
    ]
