"""Search and label, over one encoder and one zoo."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from loradex.app.paths import SHIPPED_ZOO, encoder_folders
from loradex.app.search.answers import LabelAnswer, SearchAnswer
from loradex.app.search.query import Kind, Query, open_picture
from loradex.app.search.ranking import Found, folded, fused, may_be_copies
from loradex.index import AnyZoo, Filter, open_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileError, NoExpert, QueryError
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.space.calibration import Relevance
from loradex.retrieval.space.labels import SURE, LabelList

MOST_HITS = 1000
MOST_OFFSET = 10_000
MOST_LABELS = 20_000
MOST_BY_WORDS = 100  # models found by words, and ranks by weights that count for those, so that pages follow each other
SPARE = 4  # hits beyond those that are asked for, so that copies seldom cost a second search
LEAST_LENGTH = 1e-4
ALL = Filter()


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
    def zoo(self) -> AnyZoo:
        """The zoo, for reading, bound to the encoder's space."""
        return open_zoo(self.zoo_folder, space=self.encoder.space.name, read_only=True)

    def search(self, query: str | Query, k: int = 10, *, offset: int = 0, where: Filter = ALL) -> SearchAnswer:
        """The models whose weights, or else whose words, answer a query best, those with one update as one.

        ``offset`` leaves out as many of the first hits; ``where`` says which models may be hits.

        Raises:
            QueryError: the query cannot be read, or ``k`` or ``offset`` is out of bounds.
            FileError, NoExpert: a file that is part of the query cannot be used.
            ZooError: the zoo cannot be read, or has no vector of a model that is part of the query.
        """
        if not 1 <= k <= MOST_HITS or not 0 <= offset <= MOST_OFFSET:
            raise QueryError(
                f"number of hits: expected 1 to {MOST_HITS} after at most {MOST_OFFSET}, found {k} after {offset}; ask for fewer at a time"
            )
        started = perf_counter()
        query = Query.of([query]) if isinstance(query, str) else query
        vector, itself = self.vector_of(query)
        ranked, vectors = self.ranked(query, vector / np.linalg.norm(vector), itself, offset + k, where)
        hits = self.with_probabilities(ranked[offset : offset + k], vector, vectors)
        return SearchAnswer(
            query, str(self.zoo_folder), self.encoder.space.name, (perf_counter() - started) * 1e3, hits, offset
        )

    def vector_of(self, query: Query) -> tuple[NDArray[np.float32], set[str]]:
        """The direction (dim,) of a query, and the ids of the models in it.

        Raises:
            As ``search``.
        """
        total, itself = np.zeros(self.encoder.space.dim, np.float32), set[str]()
        texts = [part for part in query.parts if part.kind is Kind.TEXT]
        if texts:
            vectors = self.encoder.encode_texts([part.value for part in texts]).numpy()
            total += np.array([part.weight for part in texts], np.float32) @ vectors
        for part in query.parts:
            if part.kind is Kind.PICTURE:
                total += part.weight * self.encoder.encode_pictures([open_picture(part.value)])[0].numpy()
            elif part.kind is Kind.MODEL:
                total += part.weight * self.zoo.vector(part.value)
                itself.add(part.value)
            elif part.kind is Kind.FILE:
                model = self.encoder.router.open(part.value)
                total += part.weight * self.encoder.encode_file(model).numpy()
                itself.add(model.id)
        if np.linalg.norm(total) < LEAST_LENGTH:
            raise QueryError(
                f"query {str(query)[:80]!r}: expected parts that leave a direction, found that they cancel out; change a weight"
            )
        return total, itself

    def ranked(
        self, query: Query, unit: NDArray[np.float32], itself: set[str], depth: int, where: Filter
    ) -> tuple[list[Found], dict[str, NDArray[np.float32]]]:
        """At least ``depth`` hits, if there are so many, without the query's own models; and the vectors of those that have one."""
        texts = query.values(Kind.TEXT)
        words = self.zoo.find(texts, MOST_BY_WORDS, where, query.values(Kind.TEXT, -1)) if texts else []
        wanted = max(depth + len(itself) + SPARE, MOST_BY_WORDS if words else 0)
        while True:
            weights = self.zoo.search(unit, wanted, where)
            vectors = {hit.model.id: hit.vector for hit in weights}
            vectors |= self.zoo.vectors_of([model.id for model in words if model.id not in vectors])
            hits = fused(
                weights,
                words,
                {model.id: float(vectors[model.id] @ unit) for model in words if model.id in vectors},
                MOST_BY_WORDS,
            )
            hits = [hit for hit in hits if hit.model.id not in itself]
            folds = folded(hits, self.zoo.fingerprints(may_be_copies(hits, vectors)))
            if len(folds) >= depth or len(weights) < wanted:
                return folds, vectors
            wanted *= 2

    def with_probabilities(
        self, hits: Sequence[Found], query: NDArray[np.float32], vectors: Mapping[str, NDArray[np.float32]]
    ) -> list[Found]:
        """The hits with how likely each is what was asked for, where an expert of its family tells."""
        likely: dict[str, float] = {}
        for family in {hit.model.family for hit in hits} & self.relevances.keys():
            ids = [hit.model.id for hit in hits if hit.model.family == family and hit.model.id in vectors]
            if ids:
                found = self.relevances[family].of_models(np.stack([vectors[id] for id in ids]), query)
                likely |= dict(zip(ids, found.tolist(), strict=True))
        return [replace(hit, probability=likely.get(hit.model.id)) for hit in hits]

    @cached_property
    def relevances(self) -> dict[str, Relevance]:
        """What scores are worth, by family; of no family where the space has no default labels."""
        if not self.encoder.has_labels:
            return {}
        labels = self.encoder.default_labels.vectors
        return {expert.family: Relevance.of(expert.calibration, labels) for expert in self.encoder.experts.values()}

    def label(self, files: Sequence[str], labels: Sequence[str] | None = None, k: int = 5) -> Iterator[LabelAnswer]:
        """Zero-shot labels of files, one after another; a file that cannot be read is answered with the reason."""
        if labels and len(labels) > MOST_LABELS:
            raise QueryError(f"labels: expected 1 to {MOST_LABELS}, found {len(labels)}; give one label a line")
        candidates = (
            LabelList(tuple(labels), self.encoder.encode_texts(labels)) if labels else self.encoder.default_labels
        )
        for file in files:
            family = "unknown"
            try:
                model = self.encoder.router.open(file)
                family = model.family
                expert, layers = self.encoder.router.route(model)
                if isinstance(expert, CategoryExpert):
                    raise NoExpert(
                        f"{file}: expected a model that draws, found one that tells categories apart; ask `loradex categories`"
                    )
                vector = expert.encode_factors(layers)[0]
                best = candidates.best(expert.calibration, vector, k)
                unsure = f"the best guess, {best[0].label}, is only {best[0].probability:.0%} likely; {SURE:.0%} is expected of an answer"
                yield LabelAnswer(
                    file, family, best, unsure if best[0].probability < SURE else None, vector=vector.numpy()
                )
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
        raise QueryError(
            f"{path}: expected a UTF-8 text file with one label a line, found: {error}; check the path"
        ) from None
    labels = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not labels:
        raise QueryError(f"{path}: expected one label a line, found an empty file; write some words into it")
    return labels
