"""Search and zero-shot labels, with one encoder and one zoo."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from loradex.app.bases.at_hand import families_at_hand
from loradex.app.paths import SHIPPED_ZOO, encoder_folders
from loradex.app.search.answers import LabelAnswer, SearchAnswer
from loradex.app.search.places import find_place
from loradex.app.search.query import PartKind, Query, open_picture
from loradex.app.search.ranking import SearchHit, fold_copies, fuse, possible_copies
from loradex.app.search.waiting import no_expert_reason
from loradex.index import AnyZoo, Evidence, Filter, ModelMissing, open_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileError, NoExpert, NoExpertReason, QueryError
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.space.labels import ABSTAIN_BELOW, LabelList
from loradex.retrieval.space.likelihood import probability
from loradex.retrieval.ways_to_expert import next_commands, ways

MAX_HITS = 1000
MAX_OFFSET = 10_000
MAX_LABELS = 20_000
MAX_BY_WORDS = 100  # models found by words; fixed, so that pages fit together
EXTRA_HITS = 4  # beyond those asked for, so that folded copies seldom make a second search necessary
MIN_NORM = 1e-4  # of the vector of a query
NO_FILTER = Filter()


class Loradex:
    """An encoder and a zoo; both are opened when they are first needed."""

    def __init__(self, zoo: Path = SHIPPED_ZOO, encoder: Path | None = None) -> None:
        """Set the folders; nothing is read yet."""
        self.zoo_folder, self.encoder_folders = zoo, [encoder] if encoder else encoder_folders(zoo)

    @cached_property
    def encoder(self) -> Encoder:
        """The space and its experts."""
        return Encoder.load(*self.encoder_folders)

    @cached_property
    def zoo(self) -> AnyZoo:
        """The zoo, opened for reading; its vectors must be of the encoder's space."""
        return open_zoo(self.zoo_folder, space=self.encoder.space.name, read_only=True)

    def search(self, query: str | Query, k: int = 10, *, offset: int = 0, where: Filter = NO_FILTER) -> SearchAnswer:
        """Find the models that a query describes best, by all that is known of them.

        Models with the same update are folded into one hit.

        Args:
            query: a text, or a query with several parts.
            k: the number of hits.
            offset: the number of hits to skip.
            where: which models may be hits.

        Raises:
            QueryError: the query cannot be read, or ``k`` or ``offset`` is out of bounds.
            FileError, NoExpert: a file that is part of the query cannot be used.
            ZooError: the zoo cannot be read, or has no vector of a model that is part of the query.
        """
        if not 1 <= k <= MAX_HITS or not 0 <= offset <= MAX_OFFSET:
            raise QueryError(
                f"number of hits: expected 1 to {MAX_HITS} after at most {MAX_OFFSET}, found {k} after {offset}; ask for fewer at a time"
            )
        start = perf_counter()
        query = Query.from_parts([query]) if isinstance(query, str) else query
        vector, own_ids = self.query_vector(query)
        direction = vector / np.linalg.norm(vector)
        is_text = all(part.kind is PartKind.TEXT for part in query.parts)  # for which scores are calibrated
        spread = self.encoder.query_spread if is_text else None
        scale = spread.scale(direction) if spread else 1.0
        ranked = self.rank(query, direction, scale, own_ids, offset + k, where)
        hits = self.add_places(ranked[offset : offset + k], query.values(PartKind.TEXT), where.folder)
        if is_text:
            hits = with_probabilities(hits)
        return SearchAnswer(
            query, str(self.zoo_folder), self.encoder.space.name, (perf_counter() - start) * 1e3, hits, offset
        )

    def query_vector(self, query: Query) -> tuple[NDArray[np.float32], set[str]]:
        """Return the weighted sum (dim,) of the vectors of a query's parts, and the ids of the models and files in it.

        Raises:
            As ``search``.
        """
        total, own_ids = np.zeros(self.encoder.space.dim, np.float32), set[str]()
        texts = [part for part in query.parts if part.kind is PartKind.TEXT]
        if texts:
            vectors = self.encoder.encode_texts([part.value for part in texts]).numpy()
            total += np.array([part.weight for part in texts], np.float32) @ vectors
        for part in query.parts:
            if part.kind is PartKind.PICTURE:
                total += part.weight * self.encoder.encode_pictures([open_picture(part.value)])[0].numpy()
            elif part.kind is PartKind.MODEL:
                total += part.weight * self.model_vector(part.value)
                own_ids.add(part.value)
            elif part.kind is PartKind.FILE:
                id, file_vector = self.file_vector(part.value)
                total += part.weight * file_vector
                own_ids.add(id)
        if np.linalg.norm(total) < MIN_NORM:
            raise QueryError(
                f"query {str(query)[:80]!r}: expected parts that leave a direction, found that they cancel out; change a weight"
            )
        return total, own_ids

    def model_vector(self, id: str) -> NDArray[np.float32]:
        """Return the vector (dim,) of a model of the zoo by its weightiest evidence.

        Raises:
            ModelMissing: there is no such model, or it has no vector.
        """
        known = self.zoo.vectors_by_id([id])
        if id in known:
            return known[id]
        model = self.zoo.get(id)
        reason = no_expert_reason(model)
        if reason is None:
            return self.zoo.vector(id)
        how = ways(reason, [model.family], families_at_hand())
        raise ModelMissing(
            f"{self.zoo_folder}: expected a vector of model {id!r}, found one of family {model.family[:40]!r} that no expert reads; "
            f"{how}, then index its file again"
        )

    def file_vector(self, path: str) -> tuple[str, NDArray[np.float32]]:
        """Return the id of a file's model, and its vector (dim,): by its expert, else as the zoo knows the model.

        Raises:
            FileError: the file cannot be used.
            NoExpert: no expert reads it, and the zoo has no position of its model.
        """
        model = self.encoder.router.open(path)
        try:
            return model.id, self.encoder.encode_file(model).numpy()
        except NoExpert:
            if known := self.zoo.vectors_by_id([model.id]):
                return model.id, known[model.id]
            raise

    def rank(
        self, query: Query, direction: NDArray[np.float32], scale: float, own_ids: set[str], depth: int, where: Filter
    ) -> list[SearchHit]:
        """Rank hits by position and by words.

        Args:
            query: whose texts are searched as words.
            direction: the unit vector (dim,) of the query.
            scale: by which its cosines count.
            own_ids: the models in the query, which are no hits.
            depth: the least number of hits, if the zoo has so many.
            where: which models may be hits.
        """
        texts = query.values(PartKind.TEXT)
        searches_words = not where.found_by or Evidence.METADATA in where.found_by
        by_words = (
            self.zoo.find(texts, MAX_BY_WORDS, where, query.values(PartKind.TEXT, -1))
            if texts and searches_words
            else []
        )
        count = depth + len(own_ids) + EXTRA_HITS
        while True:
            by_position = self.zoo.search(direction, count, where, scale=scale)
            found = {hit.model.id for hit in by_position}
            others = [model for model in by_words if model.id not in found]
            scored = self.zoo.score(others, direction, where, scale=scale)
            is_whole = len(by_position) < count
            hits = [hit for hit in fuse(by_position, by_words, scored, is_whole) if hit.model.id not in own_ids]
            vectors = {
                hit.model.id: hit.positions[hit.model.found_by].vector
                for hit in (*by_position, *scored)
                if hit.model.found_by in hit.positions
            }
            vectors |= self.zoo.vectors_by_id(
                [hit.model.id for hit in hits if hit.scores and hit.model.id not in vectors]
            )
            folded = fold_copies(hits, self.zoo.fingerprints(possible_copies(hits, vectors)))
            if len(folded) >= depth or is_whole:
                return folded
            count *= 2

    def add_places(self, hits: Sequence[SearchHit], texts: Sequence[str], folder: str | None) -> list[SearchHit]:
        """Return the hits with the file of each that answers the query; texts count for hits found by words."""
        zoo, answers = str(self.zoo_folder), []
        by_words = {hit.model.id for hit in hits if Evidence.METADATA in hit.matched}
        ids = [hit.model.id for hit in hits if folder is not None or hit.model.id in by_words]
        files = self.zoo.files_by_model(ids) if ids else {}
        for hit in hits:
            searched = texts if hit.model.id in by_words else ()
            place = find_place(hit.model, files.get(hit.model.id, []), zoo, searched, folder)
            answers.append(replace(hit, place=place))
        return answers

    def label(self, files: Sequence[str], labels: Sequence[str] | None = None, k: int = 5) -> Iterator[LabelAnswer]:
        """Yield zero-shot labels of each file, or the reason why it cannot be read.

        Args:
            files: paths or addresses of LoRA files.
            labels: the candidates; None for the default labels of the space.
            k: the number of labels per file.

        Raises:
            QueryError: there are too many labels.
        """
        if labels and len(labels) > MAX_LABELS:
            raise QueryError(f"labels: expected 1 to {MAX_LABELS}, found {len(labels)}; give one label per line")
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
                        f"{file}: expected a model that draws, found a classifier; ask `loradex categories`",
                        NoExpertReason.KIND,
                    )
                vector = expert.encode_factors(layers)[0]
                best = candidates.best(expert.calibration, vector, k)
                doubt = f"the best guess, {best[0].label}, is only {best[0].probability:.0%} likely; {ABSTAIN_BELOW:.0%} is expected of an answer"
                yield LabelAnswer(
                    file, family, best, doubt if best[0].probability < ABSTAIN_BELOW else None, vector=vector.numpy()
                )
            except NoExpert as error:
                commands = next_commands(error.reason, family, families_at_hand())
                yield LabelAnswer(file, family, [], str(error), refused=True, next=tuple(commands))
            except FileError as error:
                yield LabelAnswer(file, family, [], str(error), refused=True)


def with_probabilities(hits: Sequence[SearchHit]) -> list[SearchHit]:
    """Return hits with the probability that each draws what the query says, where its score is calibrated."""
    return [
        replace(hit, probability=float(probability(np.array(hit.score))))
        if hit.is_calibrated and hit.score is not None
        else hit
        for hit in hits
    ]
