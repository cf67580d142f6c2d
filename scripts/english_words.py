"""Write ``retrieval/words/english_words.txt.gz``: 20,000 English words, the usual candidates for words of a caption.

    .venv/bin/python -m scripts.english_words

The words are those of WordNet 3.0 (Debian's wordnet-base), all kinds, without spaces, hyphens and digits, of three
letters or more. Those come first that CLIP's tokenizer has as one token, common ones first (as in
``scripts.everyday_words``); then those that it cuts into the fewest and commonest tokens.
"""

import gzip
from typing import Final

from loradex.retrieval.text_states import load_tokenizer
from loradex.retrieval.words.english import COUNT, FILE
from scripts.everyday_words import token_ranks
from scripts.miniature.words import WORDNET

HEADER: Final = """\
# English words, one a line, common ones first, made by scripts/english_words.py from WordNet 3.0, Copyright 2006 by
# Princeton University, all rights reserved; see NOTICE for its license, under which anyone may use, copy, modify and
# distribute this list.
"""


def wordnet_words() -> set[str]:
    """Single words of WordNet, in lower-case letters (format: wndb(5WN))."""
    lines = (line for part in ("noun", "verb", "adj", "adv") for line in open_index(part))
    words = (line.split(" ", 1)[0] for line in lines if not line.startswith(" "))
    return {word for word in words if word.isascii() and word.isalpha() and len(word) > 2}


def open_index(part: str) -> list[str]:
    """The lines of an index of WordNet."""
    return (WORDNET / f"index.{part}").read_text("latin-1").splitlines()


def main() -> None:
    """Write the list."""
    ranks, tokenizer = token_ranks(), load_tokenizer().backend_tokenizer

    def rareness(word: str) -> tuple[int, int, str]:
        tokens = [] if word in ranks else tokenizer.encode(word, add_special_tokens=False).ids
        return (len(tokens), sum(tokens) or ranks[word], word)

    chosen = sorted(wordnet_words(), key=rareness)[:COUNT]
    with FILE.open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
        packed.write((HEADER + "\n".join(chosen) + "\n").encode())


if __name__ == "__main__":
    main()
