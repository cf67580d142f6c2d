"""Evidence by the words that a LoRA was trained with, read from its weights by the text encoder of its base model.

They are read where the zoo is written, not where the file is read: a worker on another machine may have neither the
base model nor a CLIP, and the states of some 20,000 words are made, and kept in memory, once. Of a remote file only
the layers that its expert reads are fetched, so its words are not read.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import numpy as np

from loradex.app.bases import NoBase
from loradex.app.indexing.evidence.positions import calibrated
from loradex.app.indexing.file_reader import ReadResult, ZooEntry
from loradex.app.indexing.words_mark import mark_of, parse_mark, with_words_mark, words_mark
from loradex.app.words import WordsService
from loradex.index import AnyZoo, Evidence, KnownFile
from loradex.index.vectors import Vector
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import CheckpointError, FileError, QueryError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.remote import is_remote
from loradex.retrieval.words import READABLE_FAMILIES

WORDS: Final = "words"  # the fact: words with their probabilities, the most probable first
MAX_WORDS: Final = 10  # stored with a model
MIN_LENGTH: Final = 1e-3  # of a mean of unit vectors that still has a direction


class WordsEvidence:
    """Reads the words of files of one run, and places their models by them.

    Attributes:
        waiting: the number of files by family whose words are not read, as their base model is missing.
        reasons: by family, what is wrong with a base model that is named.
    """

    def __init__(self, zoo: AnyZoo, encoder: Encoder, service: WordsService | None) -> None:
        """Nothing is loaded yet; without a ``service`` no words are read, and those of earlier runs stay."""
        self.zoo, self.encoder, self.service = zoo, encoder, service
        self.waiting: Counter[str] = Counter()
        self.reasons: dict[str, str] = {}
        self._fingerprints: dict[str, str | None] = {}  # of base models, by family
        self._vectors: dict[str, Vector] = {}  # of words

    def expected_mark(self, known: KnownFile | None) -> str:
        """The mark that a file will have if it is read now; that which it has, if no base model could read more."""
        mark = mark_of(known.reader) if known else ""
        parsed = parse_mark(mark)
        fingerprint = parsed and self.fingerprint(parsed[0])
        return words_mark(parsed[0], fingerprint) if parsed and fingerprint else mark

    def count_waiting(self, file: KnownFile) -> None:
        """Count a file if its words are not read, as no base model is there."""
        parsed = parse_mark(mark_of(file.reader))
        if parsed and not parsed[1] and self.service:
            self.waiting[parsed[0]] += 1

    def fingerprint(self, family: str) -> str | None:
        """The fingerprint of the base model of a family; None if none can be used."""
        if family not in self._fingerprints:
            self._fingerprints[family] = None
            if self.service and family in READABLE_FAMILIES:
                try:
                    self._fingerprints[family] = self.service.base(family).fingerprint
                except NoBase as error:
                    if family in self.service.bases.families:
                        self.reasons[family] = str(error)
        return self._fingerprints[family]

    def read(self, results: Sequence[ReadResult], progress: Callable[[str], None]) -> list[ReadResult]:
        """Complete the entries and the marks of some files by words.

        Args:
            results: what was read of the files.
            progress: called with the path of each file before its words are read.
        """
        completed = self._with_stored([self._with_words(result, progress) for result in results])
        for result in completed:
            if result.entry:
                self.count_waiting(result.file)
        self._encode({word for result in completed for word, _ in words_of(result)})
        return [self._placed(result) for result in completed]

    def _with_words(self, result: ReadResult, progress: Callable[[str], None]) -> ReadResult:
        """What was read of a file with its words, if its base model is there; marked by that."""
        file, entry = result.file, result.entry
        if entry is None:
            return result
        family = entry.model.family
        lora = None if family not in READABLE_FAMILIES or is_remote(file.path) else open_unchanged(file)
        if lora is None:
            return replace(result, file=with_words_mark(file, ""))
        if self.service is None or not self._is_ready(self.service, family):
            return replace(result, file=with_words_mark(file, words_mark(family, None)))
        progress(file.path)
        likely = self.service.read(lora, MAX_WORDS).likely
        marked = with_words_mark(file, words_mark(family, self.fingerprint(family)))
        facts = {WORDS: [[word.word, round(word.probability, 3)] for word in likely]} if likely else {}
        return replace(result, file=marked, entry=with_facts(entry, facts))

    def _is_ready(self, service: WordsService, family: str) -> bool:
        """Whether the words of a family can be read; loads what reads them."""
        if self.fingerprint(family) is None:
            return False
        try:
            service.reader(family)
        except NoBase as error:
            self._fingerprints[family], self.reasons[family] = None, str(error)
            return False
        return True

    def _with_stored(self, results: Sequence[ReadResult]) -> list[ReadResult]:
        """Files whose words could not be read get those that the zoo has of the same weights, and keep their mark."""
        unread = {
            result.entry.model.id
            for result in results
            if result.entry and (mark := parse_mark(mark_of(result.file.reader))) and not mark[1]
        }
        if not unread:
            return list(results)
        ids = sorted(unread)
        models, files = self.zoo.models_by_id(ids), self.zoo.files_by_model(ids)
        marks = {id: read_mark(files.get(id, ())) for id in models}
        completed = []
        for result in results:
            entry = result.entry
            if entry and (earlier := marks.get(entry.model.id)):
                stored = models[entry.model.id].facts
                entry = with_facts(entry, {WORDS: stored[WORDS]} if WORDS in stored else {})
                result = replace(result, file=with_words_mark(result.file, earlier), entry=entry)
            completed.append(result)
        return completed

    def _encode(self, words: Iterable[str]) -> None:
        """Encode words that are not encoded yet; without a text encoder they give no position."""
        new = sorted(set(words) - self._vectors.keys())
        if new:
            with suppress(CheckpointError, QueryError):
                self._vectors |= zip(new, self.encoder.encode_texts(new).numpy(), strict=True)

    def _placed(self, result: ReadResult) -> ReadResult:
        """What was read of a file with the position that its words give."""
        entry = result.entry
        if entry is None or (vector := mean_vector(words_of(result), self._vectors)) is None:
            return result
        position = calibrated(self.encoder, None, vector)
        return replace(result, entry=replace(entry, positions={**entry.positions, Evidence.WORDS: position}))


def words_of(result: ReadResult) -> list[tuple[str, float]]:
    """The words that were read of a file, with their probabilities."""
    return (
        [] if result.entry is None else [(str(word), float(p)) for word, p in result.entry.model.facts.get(WORDS, ())]
    )


def with_facts(entry: ZooEntry, facts: dict[str, Any]) -> ZooEntry:
    """An entry with further facts."""
    return replace(entry, model=replace(entry.model, facts=entry.model.facts | facts))


def open_unchanged(file: KnownFile) -> LoraFile | None:
    """Open a LoRA; None for a whole model, and for a file that has changed since it was read."""
    try:
        lora = LoraFile.open(file.path)
    except FileError:
        return None
    return lora if (lora.header.size, lora.header.stamp[2]) == (file.size, file.mtime_ns) else None


def read_mark(files: Iterable[KnownFile]) -> str | None:
    """The mark of a file among those of a model whose words were read by a base model; None if there is none."""
    marks = (mark_of(file.reader) for file in files)
    return next((mark for mark in marks if (parsed := parse_mark(mark)) and parsed[1]), None)


def mean_vector(words: Iterable[tuple[str, float]], vectors: Mapping[str, Vector]) -> Vector | None:
    """The mean of the unit vectors (dim,) of some words, weighted by their probabilities, at length 1.

    None if there are no words, or their vectors cancel out.
    """
    weighted = [probability * vectors[word] for word, probability in words if word in vectors]
    total = np.sum(weighted, axis=0) if weighted else np.zeros(1)
    length = float(np.linalg.norm(total))
    return (total / length).astype(np.float32) if length > MIN_LENGTH else None
