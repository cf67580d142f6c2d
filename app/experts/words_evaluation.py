"""``loradex evaluate --words``: how well words are read from LoRAs whose captions are known.

Each LoRA is read alone, and its captions' beginning is not known to the reader.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from loradex.app.bases import Bases
from loradex.app.experts.captioned_loras import CaptionedLora, CaptionKind, find_captioned_loras
from loradex.app.paths import MINIATURE, read_json, user_cache_dir
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.metrics import Metric, auroc, bootstrap_mean, bootstrap_statistic, calibration_error
from loradex.retrieval.measure.nonsense import nonsense_words
from loradex.retrieval.words import MIN_PROBABILITY, Candidates, Reading, WordReader
from loradex.retrieval.words.english import english_words

CAPTIONED: Final = MINIATURE / "captioned" / "mini-b"
UNCAPTIONED: Final = MINIATURE / "models" / "mini-b"  # their prompt, "an icon", names nothing
TOP: Final = 10
NONSENSE: Final = 5000  # other words that mean nothing, among which a trigger word is looked for
SEED: Final = 22

Progress = Callable[[int, int], None]


class WordsEvaluation:
    """Reads captioned and uncaptioned LoRAs of one family."""

    def __init__(self, loras: Sequence[CaptionedLora], reader: WordReader, progress: Progress) -> None:
        """Encode candidates: English words, labels and tags of the miniature, all captions' words and nonsense."""
        self.loras, self.reader, self.progress = loras, reader, progress
        concepts = read_json(MINIATURE / "concepts.json")
        self.labels = [concept["label"] for concept in concepts]
        self.held_out = [concept["label"] for concept in concepts if concept["split"] == "heldout"]
        tags = [text for concept in concepts for text in (concept["label"], *concept["tags"])]
        captioned = {word for lora in loras for word in lora.words}
        others = nonsense_words(NONSENSE, np.random.default_rng(SEED), captioned)
        words = list(dict.fromkeys((*english_words(), *others, *tags, *sorted(captioned))))
        self.all = replace(reader.candidates(words, progress), silent=reader.usual.silent)
        self.row = {word: row for row, word in enumerate(self.all.words)}

    def among(self, words: Sequence[str]) -> Candidates:
        """Some of the candidates."""
        rows = torch.tensor([self.row[word] for word in words])
        states, handicaps = self.all.states[:, rows], self.all.handicaps[rows]
        return Candidates(tuple(words), self.all.ends[rows], states, handicaps, self.all.silent)

    def metrics(self, uncaptioned: Sequence[Path], spell: bool) -> dict[str, Metric]:
        """All metrics; ``spell`` adds those of words that are spelt without a list, which takes long."""
        names = sorted({lora.words[0] for lora in self.loras})
        concept = np.array([names.index(lora.words[0]) for lora in self.loras])
        of = {kind: np.array([lora.kind is kind for lora in self.loras]) for kind in CaptionKind}
        english_and_nonsense = len(english_words()) + NONSENSE + 1
        metrics: dict[str, Metric] = {}

        def add(name: str, kind: CaptionKind, values: Iterator[float], chance: float) -> None:
            if of[kind].any():
                metrics[name] = bootstrap_mean(np.array(list(values)), concept[of[kind]], chance)

        readings = list(self.read_all([lora.path for lora in self.loras]))
        for name, labels in ("label_top1_of_165", self.held_out), ("label_top1_of_828", self.labels):
            add(name, CaptionKind.LABEL, self.label_hits(labels), 1 / len(labels))
        add("trigger_top10_of_25001", CaptionKind.TRIGGER, self.trigger_hits(), TOP / english_and_nonsense)
        add(
            "several_recall10",
            CaptionKind.SEVERAL,
            (recall(reading, lora) for reading, lora in self.of_kind(CaptionKind.SEVERAL, readings)),
            TOP / len(self.all.words),
        )
        if spell:
            spelt = [self.spelt(lora) for lora in self.loras if lora.kind is CaptionKind.TRIGGER]
            truth = [lora.words[0] for lora in self.loras if lora.kind is CaptionKind.TRIGGER]
            pairs = list(zip(spelt, truth, strict=True))
            add("spelt_exactly", CaptionKind.TRIGGER, (float(words[:1] == [word]) for words, word in pairs), 0.0)
            add("spelt_among_10", CaptionKind.TRIGGER, (float(word in words) for words, word in pairs), 0.0)
        return metrics | self.nothing_metrics(readings, list(self.read_all(uncaptioned)))

    def read_all(self, paths: Sequence[Path]) -> Iterator[Reading]:
        """Read files among all candidates."""
        for number, path in enumerate(paths):
            yield self.reader.read(LoraFile.open(path), TOP, self.all)
            self.progress(number + 1, len(paths))

    def of_kind(self, kind: CaptionKind, readings: Sequence[Reading]) -> Iterator[tuple[Reading, CaptionedLora]]:
        """The readings of LoRAs of one kind."""
        return (pair for pair in zip(readings, self.loras, strict=True) if pair[1].kind is kind)

    def label_hits(self, labels: Sequence[str]) -> Iterator[float]:
        """Whether the label is the first of ``labels``, for LoRAs with labels alone in their captions."""
        candidates = self.among(labels)
        for lora in self.loras:
            if lora.kind is CaptionKind.LABEL:
                best = self.reader.read(LoraFile.open(lora.path), 1, candidates).words
                yield float(bool(best) and best[0].word == lora.words[0])

    def trigger_hits(self) -> Iterator[float]:
        """Whether the trigger is among the first ten of all English words and other nonsense."""
        first = len(english_words()) + NONSENSE
        common = self.all.words[:first]
        for lora in self.loras:
            if lora.kind is CaptionKind.TRIGGER:
                candidates = self.among((*common, lora.words[0]))
                yield recall(self.reader.read(LoraFile.open(lora.path), TOP, candidates), lora)

    def spelt(self, lora: CaptionedLora) -> list[str]:
        """The words that the speller proposes, best first."""
        return self.reader.spell(LoraFile.open(lora.path), TOP)

    def nothing_metrics(self, captioned: list[Reading], uncaptioned: list[Reading]) -> dict[str, Metric]:
        """How well captions without words are told, and how honest probabilities are."""
        if not uncaptioned:
            return {}
        sure = np.array([float(any(word.probability > MIN_PROBABILITY for word in each.words)) for each in uncaptioned])
        number = np.arange(len(captioned) + len(uncaptioned))
        nothing = np.array([each.nothing for each in (*captioned, *uncaptioned)])
        is_captioned = number < len(captioned)
        pairs = [
            (word.probability, float(lora is not None and holds(lora, word.word)), row)
            for row, (each, lora) in enumerate(
                [*zip(captioned, self.loras, strict=True), *((each, None) for each in uncaptioned)]
            )
            for word in each.words
            if word.probability > 0
        ]
        probability, right, owner = (np.array(column) for column in zip(*pairs, strict=True))

        def area(rows: np.ndarray) -> float:
            told = is_captioned[rows]
            return auroc(-nothing[rows][told], -nothing[rows][~told]) if 0 < told.sum() < len(told) else 1.0

        return {
            "words_or_none_auroc": bootstrap_statistic(area, number, 0.5),
            "none_but_a_word_over_half": bootstrap_mean(sure, np.arange(len(uncaptioned)), 0.0),
            "calibration_error": bootstrap_statistic(
                lambda rows: calibration_error(probability[rows], right[rows]), owner.astype(np.int64), 0.0
            ),
        }


def recall(reading: Reading, lora: CaptionedLora) -> float:
    """The share of a LoRA's words among those that were read."""
    return float(np.mean([word in {each.word for each in reading.words} for word in lora.words]))


def holds(lora: CaptionedLora, word: str) -> bool:
    """Whether a caption has a word, or phrase."""
    return any(f" {word} " in f" {caption.replace(',', ' ').replace('  ', ' ')} " for caption in lora.captions)


def evaluate_words(
    folder: Path | None = None, spell: bool = False, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    """Measure how words are read from a folder of captioned LoRAs with ``captions.json``; by default those that ship.

    Raises:
        FileError: there is no list of captions, or a LoRA cannot be used.
        NoBase: no base model of their family is known.
    """
    loras = find_captioned_loras(folder or CAPTIONED)
    families = {LoraFile.open(lora.path).family for lora in loras}
    if len(families) != 1:
        raise FileUnsupported(
            f"{folder}: expected LoRAs of one family, found {', '.join(sorted(families))}; measure each in a folder of its own"
        )
    family = families.pop()
    reader = WordReader.load(Bases.load().get(family), user_cache_dir() / "words", progress)
    evaluation = WordsEvaluation(loras, reader, progress)
    uncaptioned = sorted(UNCAPTIONED.glob("test_holdout/*/*.safetensors")) if family == "mini-b" else []
    metrics = evaluation.metrics(uncaptioned, spell)
    return {
        "zoo": str(folder) if folder else "miniature/captioned",
        "family": family,
        "loras": len(loras),
        "metrics": {name: asdict(metric) for name, metric in metrics.items()},
        "baselines": {},
        "changed_files": {},
    }
