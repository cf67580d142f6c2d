"""Write ``app/growing/words/drawable_words.txt`` again in its order, and say what to look at in it.

    .venv/bin/python -m scripts.grow_words

The words were chosen by hand for Loradex, kind by kind: things that a picture shows, with one meaning each (qualified
where a word has several), no brands, no living persons, nothing that insults or belongs to hate, sex or violence. To
change the list, edit the file and run this. It drops what is there twice, sorts each kind by how common its words are
(the ranks of CLIP's tokenizer, which merged its byte pairs in the order of how often they occurred in texts from the
web), and names words that ``scripts.everyday_words`` leaves out, and names of things whose usual meaning in WordNet 3.0
(Debian's wordnet-base), a noun's first one, is nothing that can be seen.
"""

from collections import defaultdict
from typing import Final

from loradex.app.growing.word_list import FILE, Word, parse_words
from loradex.retrieval.text_states import load_tokenizer
from scripts.everyday_words import LEFT_OUT
from scripts.miniature.words import CONCRETE_NOUNS, first_senses, read_synsets

HEADER: Final = """\
## Words that an image model can draw, from which Loradex grows experts: one a line, below their kinds.
## Chosen for Loradex by hand, put in order by scripts/grow_words.py. Part of Loradex, Apache License 2.0 (see LICENSE).
"""
THINGS: Final = {
    "animals",
    "clothing",
    "food",
    "objects",
    "plants",
    "vehicles",
}  # kinds whose words WordNet's check is for
RARER: Final = 10_000  # what each further token counts, in ranks of tokens


def by_kind(words: tuple[Word, ...]) -> dict[str, list[str]]:
    """The words of each kind, common ones first, the kinds by name."""
    tokenizer = load_tokenizer().backend_tokenizer

    def rareness(text: str) -> tuple[int, str]:
        tokens = tokenizer.encode(text, add_special_tokens=False).ids
        return sum(tokens) + RARER * (len(tokens) - 1), text

    kinds = defaultdict[str, list[str]](list)
    for word in words:
        kinds[word.kind].append(word.text)
    return {kind: sorted(texts, key=rareness) for kind, texts in sorted(kinds.items())}


def doubtful(words: tuple[Word, ...]) -> list[str]:
    """Single words to look at: those that another list leaves out, and those that mean nothing that can be seen."""
    senses, nouns, left_out = first_senses(), read_synsets("noun"), set(LEFT_OUT.split())
    return sorted(
        word.text
        for word in words
        if word.text in left_out
        or (
            word.kind in THINGS and word.text in senses and nouns[senses[word.text]].lexicographer not in CONCRETE_NOUNS
        )
    )


def main() -> None:
    """Write the list."""
    words = parse_words(FILE.read_text("utf-8").splitlines())
    kinds = by_kind(words)
    sections = "".join(f"\n# {kind}\n" + "\n".join(texts) + "\n" for kind, texts in kinds.items())
    FILE.write_text(HEADER + sections, "utf-8")
    print(f"{FILE}: {len(words)} words of {len(kinds)} kinds")  # noqa: T201
    print(f"to look at: {', '.join(doubtful(words))}")  # noqa: T201


if __name__ == "__main__":
    main()
