"""Search and label, over one encoder and one zoo."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from time import perf_counter

from app.answers import LabelAnswer, SearchAnswer
from app.places import SHIPPED_ZOO, encoder_folders
from index import FoundBy, Hit, Zoo
from retrieval.encoder import Encoder
from retrieval.errors import FileError, NoExpert, QueryError
from retrieval.label import SURE, LabelList

MOST_HITS = 1000
MOST_LABELS = 20_000


class Loradex:
    """An encoder and a zoo, opened when they are first needed."""

    def __init__(self, zoo: Path = SHIPPED_ZOO, encoder: Path | None = None) -> None:
        """Name the folders; nothing is read yet."""
        self.zoo_folder, self.encoder_folders = zoo, [encoder] if encoder else encoder_folders(zoo)

    @cached_property
    def encoder(self) -> Encoder:
        """The space and its experts."""
        return Encoder.load(*self.encoder_folders)

    @cached_property
    def zoo(self) -> Zoo:
        """The zoo, for reading, bound to the encoder's space."""
        return Zoo.open(self.zoo_folder, space=self.encoder.space.name, read_only=True)

    def search(self, text: str, k: int = 10) -> SearchAnswer:
        """The models whose weights, or else whose names, answer a text best.

        Raises:
            QueryError: the text is empty or too long, or ``k`` is out of bounds.
        """
        if not 1 <= k <= MOST_HITS:
            raise QueryError(f"number of hits: expected 1 to {MOST_HITS}, found {k}; ask for fewer at a time")
        started = perf_counter()
        query = self.encoder.encode_texts([text])[0]
        named = list(self._named(text))[: max(1, k // 2)]
        hits = self.zoo.search(query.numpy(), k - len(named)) + named
        return SearchAnswer(text, str(self.zoo_folder), self.encoder.space.name, (perf_counter() - started) * 1e3, hits)

    def _named(self, text: str) -> Iterator[Hit]:
        """Models known by metadata alone whose name has every word of the text."""
        words = re.findall(r"\w+", text.lower())
        for model in self.zoo.models():
            if model.found_by is FoundBy.METADATA and words and all(word in model.name.lower() for word in words):
                yield Hit(model, 1.0)

    def label(self, files: Sequence[str], labels: Sequence[str] | None = None, k: int = 5) -> Iterator[LabelAnswer]:
        """Zero-shot labels of files, one after another; a file that cannot be read is answered with the reason."""
        if labels and len(labels) > MOST_LABELS:
            raise QueryError(f"labels: expected 1 to {MOST_LABELS}, found {len(labels)}; give one label a line")
        candidates = LabelList(tuple(labels), self.encoder.encode_texts(labels)) if labels else self.encoder.default_labels
        for file in files:
            family = "unknown"
            try:
                model = self.encoder.router.open(file)
                family = model.family
                expert, layers = self.encoder.router.route(model)
                best = candidates.best(expert.calibration, expert.encode_factors(layers)[0], k)
                unsure = f"the best guess, {best[0].label}, is only {best[0].probability:.0%} likely; {SURE:.0%} is expected of an answer"
                yield LabelAnswer(file, family, best, unsure if best[0].probability < SURE else None)
            except (FileError, NoExpert) as error:
                yield LabelAnswer(file, family, [], str(error), refused=True)


def read_labels(path: Path) -> list[str]:
    """The labels of a text file, one a line; empty lines are left out.

    Raises:
        QueryError: the file cannot be read or holds none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise QueryError(f"{path}: expected a UTF-8 text file with one label a line, found: {error}; check the path") from None
    labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not labels:
        raise QueryError(f"{path}: expected one label a line, found an empty file; write some words into it")
    return labels
