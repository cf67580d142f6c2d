"""The words whose pictures a base model draws: a list that ships, and lists of a person's own."""

import hashlib
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import QueryError

FILE: Final = Path(__file__).parent / "words" / "drawable_words.txt"
HEADING: Final = "#"  # begins a line that names the kind of the words below
COMMENT: Final = "##"
MAX_LETTERS: Final = 200  # of a word; CLIP reads 77 tokens
MAX_WORDS: Final = 100_000
MAX_SLUG: Final = (
    60  # characters of a folder name that says the whole word; longer ones are cut and told apart by a hash
)


@dataclass(frozen=True, slots=True)
class Word:
    """A word or short phrase that an image model can draw, and its kind ("animals"; "" if its list names none)."""

    text: str
    kind: str

    @property
    def key(self) -> str:
        """What is the same for two spellings of one word."""
        return unicodedata.normalize("NFC", " ".join(self.text.split())).casefold()


@cache
def shipped_words() -> tuple[Word, ...]:
    """Return the words that ship (``scripts/grow_words.py``): in any first part all kinds, common words first."""
    return parse_words(FILE.read_text("utf-8").splitlines())


def read_words(path: Path) -> tuple[Word, ...]:
    """Read a person's list: one word a line; lines "# kind" begin a kind, lines "## ..." are comments.

    A list without kinds keeps its order; kinds are mixed as in ``parse_words``.

    Raises:
        QueryError: the file cannot be read or is too large, or holds no words, too many, or one that is too long.
    """
    from loradex.app.text_lists import read_lines  # noqa: PLC0415 - imports torch, which shipped_words can do without

    words = parse_words(read_lines(path, "word"))
    if not words:
        raise QueryError(f"{path}: expected one word per line, found only headings (#); write some words below them")
    if len(words) > MAX_WORDS:
        raise QueryError(f"{path}: expected at most {MAX_WORDS:,} words, found {len(words):,}; leave some out")
    for word in words:
        if len(word.text) > MAX_LETTERS or not word.text.isprintable():
            found = f"{len(word.text)}" if len(word.text) > MAX_LETTERS else "some that cannot be printed"
            raise QueryError(
                f"{path}: expected words of at most {MAX_LETTERS} printable characters, "
                f"found {found} in {word.text[:20]!a}...; shorten that line"
            )
    return words


def parse_words(lines: Iterable[str]) -> tuple[Word, ...]:
    """The words of a list, each once whatever its case, ordered so that any first part has a fair share of all kinds.

    Within a kind the order is the list's. The i-th of n words of a kind stands at (i + 1/2) / n of the whole.
    """
    kinds, kind = defaultdict[str, dict[str, Word]](dict), ""
    seen = set[str]()
    for line in lines:
        text = " ".join(line.split())
        if not text or text.startswith(COMMENT):
            continue
        if text.startswith(HEADING):
            kind = text.removeprefix(HEADING).strip()
            continue
        word = Word(text, kind)
        if word.key not in seen:
            seen.add(word.key)
            kinds[kind][word.key] = word
    placed = [((i + 0.5) / len(words), word) for words in kinds.values() for i, word in enumerate(words.values())]
    return tuple(word for _, word in sorted(placed, key=lambda item: item[0]))


def slug(word: str) -> str:
    """A folder name for a word, safe on every system and another one for every word: ``polar_bear``.

    Words of other than a-z, 0-9, spaces and hyphens, long ones and names of devices end in a dot and a hash.
    """
    key = Word(word, "").key
    name = re.sub(r"[^a-z0-9 -]", "", unicodedata.normalize("NFKD", key)).strip(" -").replace(" ", "_")
    exact = name.replace("_", " ") == key and len(name) <= MAX_SLUG
    if exact and not re.fullmatch(r"con|prn|aux|nul|(com|lpt)[0-9]", name):
        return name
    return f"{name[:MAX_SLUG] or 'word'}.{hashlib.sha256(key.encode()).hexdigest()[:12]}"
