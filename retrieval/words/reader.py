"""Reads the words that a LoRA was trained with, by the text encoder of its base model alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import QueryError, located
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.everyday import everyday_words
from loradex.retrieval.text_states import PromptEncoder
from loradex.retrieval.words.cached import cache_path, load_states, save_states
from loradex.retrieval.words.captions import Found, compare_openings, grow_caption
from loradex.retrieval.words.cross_attention import read_keys_and_values
from loradex.retrieval.words.english import english_words
from loradex.retrieval.words.likelihood import CommonStates
from loradex.retrieval.words.prompts import (
    NAMES_NOTHING,
    NOTHING,
    Candidates,
    Progress,
    make_candidates,
    make_templates,
    prompt_states,
)
from loradex.retrieval.words.spelling import LETTER, Speller

MAX_CANDIDATES: Final = 100_000
MAX_WORD: Final = 200  # characters
COMPARED: Final = 300  # candidates that are compared in all templates, after a quick look at all
FROM_ENCODER: Final = 100  # of them, if the file trains the text encoder too and their states are made anew
COMMON_TEXTS: Final = 1000
COMMON_POSITIONS: Final = 24
MIN_PROBABILITY: Final = 0.5  # of a word that is shown as one that the file was trained with
# Fitted on the miniature's validation concepts (docs/experiments.md).
TEMPERATURE: Final = 3.0  # of a word among its rivals
GAIN_MIDDLE: Final = 10.0  # of a word that is as likely as not
GAIN_SCALE: Final = 8.0
LEAD_MIDDLE: Final = -5.0  # of the best word over prompts that name nothing, if there are as likely words as not
LEAD_SCALE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its score, what it adds to those before it, and the probability that captions of the file hold it."""

    word: str
    score: float
    probability: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The words of a file, best first, and the probability that there are none to be read."""

    words: tuple[Word, ...]
    nothing: float


class WordReader:
    """The text encoder of one base model, and the states of the usual candidates. Thread-safe.

    Attributes:
        family: of the base model.
        fingerprint: of its text encoder.
    """

    def __init__(
        self, encoder: PromptEncoder, cache: Path | None = None, progress: Progress = lambda done, total: None
    ) -> None:
        """Encode the usual candidates, or load their states; see ``load``."""
        self.encoder, self.family, self.fingerprint = encoder, encoder.family, encoder.fingerprint
        self._lock = Lock()
        words = usual_words()
        path = cache_path(cache, self.fingerprint, words) if cache else None
        kept = load_states(path, words) if path else None
        self.common = kept[0] if kept else common_states(encoder, words)
        self.templates = make_templates(encoder, self.common)
        usual = kept[1] if kept else make_candidates(encoder, self.common, self.templates, words, progress)
        if path and not kept:
            save_states(path, self.common, usual)
        self.usual = replace(usual, silent=NAMES_NOTHING)
        self.nothing = self.common.centred(prompt_states(encoder, NOTHING))
        self.speller = Speller(encoder, self.common)

    @classmethod
    def load(
        cls, base: BaseModel, cache: Path | None = None, progress: Progress = lambda done, total: None
    ) -> "WordReader":
        """Read the text encoder of a base model and encode the usual candidates.

        Args:
            base: the base model.
            cache: folder that keeps their states for the next time.
            progress: called with texts encoded and texts in all.

        Raises:
            CheckpointError, FileError: the text encoder cannot be used.
        """
        return cls(PromptEncoder.load(base), cache, progress)

    def candidates(self, words: Sequence[str], progress: Progress = lambda done, total: None) -> Candidates:
        """Encode a person's own candidates, each once.

        Raises:
            QueryError: there are none or too many, or one is empty or too long.
        """
        if not 0 < len(words) <= MAX_CANDIDATES:
            raise QueryError(
                f"candidate words: expected 1 to {MAX_CANDIDATES:,}, found {len(words):,}; leave out those of no interest"
            )
        for word in words:
            if not word.strip() or len(word) > MAX_WORD:
                raise QueryError(
                    f"candidate words: expected 1 to {MAX_WORD} characters each, found {len(word)} in {word[:40]!r}; shorten it"
                )
        with self._lock:
            return make_candidates(self.encoder, self.common, self.templates, list(dict.fromkeys(words)), progress)

    def read(
        self,
        lora: LoraFile,
        k: int = 10,
        candidates: Candidates | None = None,
        spell: bool = False,
        progress: Progress = lambda done, total: None,
    ) -> Reading:
        """Read the ``k`` likeliest words of a LoRA.

        Args:
            lora: the file.
            k: the number of words.
            candidates: among which they are looked for, in place of the usual ones.
            spell: also look for words that are no candidates, token by token; takes long.
            progress: called with steps done and steps in all, while words are spelt.

        Raises:
            NoWords: the file changes no keys and values of cross-attention.
            FileCorrupt: its weights cannot be used.
        """
        layers = self.common.own_layers(read_keys_and_values(lora, self.encoder.width))
        candidates = candidates or self.usual
        text_layers = [name for name in lora.layers if name.startswith("text_encoder")]
        if text_layers:
            best = self.common.quick_scores(layers, candidates.ends).topk(min(FROM_ENCODER, len(candidates.words)))
            words = [candidates.words[row] for row in best.indices.tolist()]
            updates = lora.updates(text_layers)
            with located(lora.path), self._lock, self.encoder.with_updates(updates):
                own = make_candidates(self.encoder, self.common, self.templates, words)
            candidates = replace(own, silent=candidates.silent)
        return self._read(layers, k, candidates, spell, progress)

    def _read(
        self, layers: Sequence[Tensor], k: int, candidates: Candidates, spell: bool, progress: Progress
    ) -> Reading:
        if spell:
            candidates = candidates.joined(self._spelt(layers, candidates, progress))
        opening = compare_openings(self.common, self.templates, layers, candidates, COMPARED)
        found = grow_caption(
            self.common,
            self.templates,
            layers,
            candidates,
            opening,
            self.nothing,
            k + len(candidates.silent),
            TEMPERATURE,
        )
        words = [
            Word(candidates.words[each.row], each.gain, probability(each))
            for each in found
            if each.row is not None and candidates.words[each.row] not in candidates.silent
        ]
        words.sort(key=lambda word: (-word.probability, -word.score))
        known = {word.word for word in words} | candidates.silent
        best = opening.scores.argsort(descending=True).tolist()
        rivals = (candidates.words[int(opening.rows[place])] for place in best)
        words += [Word(word, 0.0, 0.0) for word in rivals if word not in known]
        lead = float(opening.scores.max()) - max(0.0, float(self.common.scores(layers, self.nothing).max()))
        return Reading(tuple(words[:k]), sigmoid((LEAD_MIDDLE - lead) / LEAD_SCALE))

    def spell(self, lora: LoraFile, k: int = 10, progress: Progress = lambda done, total: None) -> list[str]:
        """Spell up to ``k`` words token by token, without any list.

        Raises:
            NoWords, FileCorrupt: as ``read``.
        """
        layers = self.common.own_layers(read_keys_and_values(lora, self.encoder.width))
        with self._lock:
            return [word for word, _ in self.speller.spell(layers, k, progress)]

    def _spelt(self, layers: Sequence[Tensor], candidates: Candidates, progress: Progress) -> Candidates:
        """Further words that the speller proposes, with what it takes to choose them among all others."""
        with self._lock:
            spelt_words = [word for word, _ in self.speller.spell(layers, progress=progress)]
            known = set(candidates.words)
            proposals = [word for word in spelt_words if word not in known]
            spelt = make_candidates(self.encoder, self.common, self.templates, proposals)
        chosen_from = math.log(len(self.usual.words))
        letters = torch.tensor([float(len(word)) for word in proposals])
        spelt.handicaps.copy_((LETTER * letters - chosen_from).clamp(min=0))
        return spelt


def probability(found: Found) -> float:
    """The probability that captions hold a word, by what it adds and by its share among its rivals."""
    return found.share * sigmoid((found.gain - GAIN_MIDDLE) / GAIN_SCALE)


def sigmoid(log_odds: float) -> float:
    """A probability by its log-odds."""
    return 1 / (1 + math.exp(min(-log_odds, 700.0)))  # beyond which ``exp`` overflows


def common_states(encoder: PromptEncoder, words: Sequence[str]) -> CommonStates:
    """Average the states of some of the usual candidates."""
    some = words[:: max(1, len(words) // COMMON_TEXTS)]
    return CommonStates.of(encoder.states(encoder.tokenize(some), min(COMMON_POSITIONS, encoder.length)))


def usual_words() -> list[str]:
    """The usual candidates: English words, and names of everyday things, styles and scenes."""
    return list(dict.fromkeys((*english_words(), *everyday_words())))
