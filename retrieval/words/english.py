"""English words: the usual candidates for the words of a caption."""

import gzip
from functools import cache
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).with_name("english_words.txt.gz")
COUNT: Final = 20_000


@cache
def english_words() -> tuple[str, ...]:
    """Return 20,000 words in lower-case letters, common ones first (WordNet 3.0; ``scripts/english_words.py``)."""
    lines = gzip.decompress(FILE.read_bytes()).decode().splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
