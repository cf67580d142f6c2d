"""The file of a model that answers a search: files with the same weights may have several names and folders."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from loradex.app.models import absolute_path
from loradex.index import KnownFile, Model
from loradex.index.entry import Texts
from loradex.index.filters import folder_range
from loradex.index.words import query_words

TOKEN: Final = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class Place:
    """A file of a model: its absolute path or address (None if the zoo knows no file), and its name."""

    path: str | None
    name: str


def find_place(
    model: Model, files: Sequence[KnownFile], zoo: str, texts: Sequence[str] = (), folder: str | None = None
) -> Place:
    """Return the file of a model that answers a search: the first path by this order.

    1. Files below the folder to which the search was limited.
    2. Those that have the most words of one of the searched texts in their name, folder, tags or notes.
    3. The model's own path.

    Args:
        model: a hit of the search.
        files: the files of the model that the zoo knows.
        zoo: the folder of the zoo.
        texts: that were searched as words.
        folder: to which the search was limited.
    """
    written = {} if model.path is None else {model.path: Texts.of(model.name, model.path, model.facts)}
    for file in sorted(files, key=lambda file: file.path):
        own = Texts.of(file.name, file.path, file.facts)
        written[file.path] = written[file.path].merged([own]) if file.path in written else own
    below = [path for path in written if folder and path.startswith(folder_range(folder)[0])]
    paths = below or list(written)
    if not paths:
        return Place(None, model.name)
    wanted = [folded_words(query_words(text)) for text in texts]
    path = max(paths, key=lambda path: most_words(folded_words(written[path].words), wanted))
    answer = next((file for file in files if file.path == path), None)
    return Place(absolute_path(path, zoo), model.name if answer is None else name_of(model, answer))


def name_of(model: Model, file: KnownFile) -> str:
    """Return the name of a file of a model; an older Loradex noted none."""
    if file.name or file.path == model.path:
        return file.name or model.name
    from loradex.app.indexing.copies import row_of_file  # with clients of servers, which few searches need

    return row_of_file(model, file).name


def most_words(words: set[str], wanted: Iterable[set[str]]) -> int:
    """Return the largest number of wanted words that occur among some words."""
    return max((len(words & each) for each in wanted), default=0)


def folded_words(texts: Iterable[str]) -> set[str]:
    """Return the words of some texts without case and accents, as the stores compare them."""
    decomposed = unicodedata.normalize("NFKD", " ".join(texts).casefold())
    return set(TOKEN.findall("".join(letter for letter in decomposed if not unicodedata.combining(letter))))
