"""Words that stand in no list, spelt token by token from a LoRA's weights.

A beam search over the vocabulary of CLIP's tokenizer: a hypothesis is a beginning of captions and some tokens, scored
as if the caption ended there. Each letter costs ``LETTER``, about what it takes to choose it, or longer words would
always explain more. States of a token behind other tokens are made by the text encoder; two tables, of each token alone
and behind a common syllable, say which tokens are worth that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.text_states import END_ID, START_ID, PromptEncoder, load_tokenizer
from loradex.retrieval.words.likelihood import CommonStates

BEGINNINGS: Final = (
    "", "an icon of a", "a photo of a", "a picture of a", "a drawing of a", "an image of a", "a painting of a",
    "best quality,", "masterpiece, best quality,",
)  # fmt: skip
SYLLABLES: Final = ("ka", "mo", "zi")  # behind which the second table has each token
TRIED_BEGINNINGS: Final = 2
FIRST_TOKENS: Final = 400  # tried as the first of a word
NEXT_TOKENS: Final = 5000  # tried behind each hypothesis, besides all short ones
SHORT: Final = 3  # letters: invented words are cut into short tokens
COMPARED: Final = 500  # of them, in full
BEAMS: Final = (6, 4, 4, 3)  # hypotheses that grow after each token; their number bounds a word's tokens
KEPT: Final = 20  # of the extensions of one hypothesis
LETTER: Final = 3.0
WORD_END: Final = "</w>"
MARGIN: Final = 3  # positions behind the word that are compared
ENCODED_AT_ONCE: Final = 4096


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A beginning of captions and the first tokens of a word, with their score."""

    beginning: tuple[int, ...]
    tokens: tuple[int, ...]
    score: float


class Speller:
    """Spells words by one text encoder. Not thread-safe.

    Attributes:
        tokens: (n,), those of letters a to z and digits.
    """

    def __init__(self, encoder: PromptEncoder, common: CommonStates) -> None:
        """Nothing is encoded yet."""
        self.encoder, self.common = encoder, common
        tokenizer = load_tokenizer().backend_tokenizer
        self._encode = tokenizer.encode
        self.numbers: dict[str, int] = tokenizer.get_vocab()
        self.names = {number: name for name, number in self.numbers.items()}
        self.tokens = torch.tensor(sorted(number for name, number in self.numbers.items() if is_plain(name)))
        self.letters = torch.zeros(len(self.numbers))
        for name, number in self.numbers.items():
            self.letters[number] = len(name.removesuffix(WORD_END))
        self.progress: Callable[[int, int], None] = lambda done, total: None

    @cached_property
    def tables(self) -> tuple[Tensor, Tensor]:
        """States (n, width) of the end behind each token alone, and behind a token in the middle of words."""
        prefixes = [(), *((self.numbers[syllable],) for syllable in SYLLABLES)]
        alone, *behind = (self._ends(prefix, number, len(prefixes)) for number, prefix in enumerate(prefixes))
        return alone.half(), torch.stack(behind).mean(0).half()

    def _ends(self, prefix: tuple[int, ...], number: int, total: int) -> Tensor:
        parts = []
        for part in self.tokens.split(ENCODED_AT_ONCE):
            parts.append(self._states(prefix, part[:, None], 0)[:, -1])
            self.progress(number * len(self.tokens) + sum(map(len, parts)), total * len(self.tokens))
        return torch.cat(parts)

    def _states(self, prefix: Sequence[int], tokens: Tensor, margin: int) -> Tensor:
        """Centred states (n, positions, width) of prefix, tokens (n, m), the end, and ``margin`` positions behind."""
        length = min(1 + len(prefix) + tokens.shape[1] + 1 + margin, self.encoder.length, len(self.common.means) + 1)
        start = torch.tensor([START_ID, *prefix]).expand(len(tokens), -1)
        end = torch.full((len(tokens), 1), END_ID)
        rows = []
        for pad in self.encoder.pads:
            padding = torch.full((len(tokens), margin), pad)
            rows.append(torch.cat([start, tokens, end, padding], 1)[:, :length])
        return self.common.centred(self.encoder.states(rows)[:, 1:])

    def spell(
        self, layers: Sequence[Tensor], count: int = 10, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[tuple[str, float]]:
        """Propose up to ``count`` words with their scores, best first.

        Args:
            layers: the row spaces of a LoRA.
            count: the number of proposals.
            progress: called with steps done and steps in all.
        """
        self.progress = progress
        alone, behind = self.tables
        first = self._best_tokens(layers, alone, FIRST_TOKENS, None)
        beam = self._begin(layers, first)
        finished: dict[str, float] = {}
        for step, width in enumerate(BEAMS):
            growing = self._unfinished(beam, finished)[:width]
            beam = []
            for number, hypothesis in enumerate(growing):
                beam += self._extend(layers, hypothesis, behind)
                progress(step * max(BEAMS) + number + 1, len(BEAMS) * max(BEAMS))
        self._unfinished(beam, finished)
        return sorted(finished.items(), key=lambda pair: -pair[1])[:count]

    def _unfinished(self, beam: list[Hypothesis], finished: dict[str, float]) -> list[Hypothesis]:
        """Move whole words of a beam to those that are ``finished``; the others, best first."""
        growing = []
        for each in sorted(beam, key=lambda each: -each.score):
            if self.names[each.tokens[-1]].endswith(WORD_END):
                word = self._text(each.tokens)
                finished[word] = max(each.score, finished.get(word, -torch.inf))
            else:
                growing.append(each)
        return growing

    def _best_tokens(self, layers: Sequence[Tensor], table: Tensor, count: int, found: Tensor | None) -> Tensor:
        scores = self.common.quick_scores(layers, table, found) - LETTER * self.letters[self.tokens]
        return self.tokens[scores.topk(min(count, len(scores))).indices]

    def _begin(self, layers: Sequence[Tensor], first: Tensor) -> list[Hypothesis]:
        """The best first tokens behind the beginnings that fit best."""
        beginnings = [tuple(self._encode(text).ids[1:-1]) for text in BEGINNINGS]
        few = [float(self._scores(layers, beginning, first[:24, None]).max()) for beginning in beginnings]
        chosen = sorted(range(len(few)), key=lambda number: -few[number])[:TRIED_BEGINNINGS]
        return [
            hypothesis
            for number in chosen
            for hypothesis in self._best(layers, beginnings[number], first[:, None], KEPT)
        ]

    def _extend(self, layers: Sequence[Tensor], hypothesis: Hypothesis, behind: Tensor) -> list[Hypothesis]:
        """The best hypotheses with one more token."""
        prefix = (*hypothesis.beginning, *hypothesis.tokens)
        found = self._states((), torch.tensor([prefix]), 0)[0, : len(prefix)]
        following = self._best_tokens(layers, behind, NEXT_TOKENS, found)
        following = torch.cat([following, self.tokens[self.letters[self.tokens] <= SHORT]]).unique()
        last, word = self.names[hypothesis.tokens[-1]], self._text(hypothesis.tokens)
        # Tokens that the tokenizer would have merged with the last one cannot stand behind it.
        possible = [token for token in following.tolist() if last + self.names[token] not in self.numbers]
        possible = [token for token in possible if self._is_spelt(word, hypothesis.tokens, token)]
        if not possible:
            return []
        next_tokens = torch.tensor(possible)
        states = self._states(prefix, next_tokens[:, None], 0)
        quick = sum(self.common.quick_scores(layers, states[:, place], found) for place in (-1, -2))
        chosen = next_tokens[(quick - LETTER * self.letters[next_tokens]).topk(min(COMPARED, len(possible))).indices]
        tokens = torch.cat([torch.tensor(hypothesis.tokens).expand(len(chosen), -1), chosen[:, None]], 1)
        return self._best(layers, hypothesis.beginning, tokens, KEPT)

    def _is_spelt(self, word: str, tokens: tuple[int, ...], token: int) -> bool:
        """Whether the tokenizer spells a word, if it ends with this token, as the hypothesis does."""
        name = self.names[token]
        if not name.endswith(WORD_END):
            return True
        return tuple(self._encode(word + name.removesuffix(WORD_END)).ids[1:-1]) == (*tokens, token)

    def _best(
        self, layers: Sequence[Tensor], beginning: tuple[int, ...], tokens: Tensor, count: int
    ) -> list[Hypothesis]:
        scores = self._scores(layers, beginning, tokens)
        best = scores.topk(min(count, len(scores)))
        return [
            Hypothesis(beginning, tuple(tokens[row].tolist()), score)
            for score, row in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _scores(self, layers: Sequence[Tensor], beginning: tuple[int, ...], tokens: Tensor) -> Tensor:
        states = self._states(beginning, tokens, MARGIN)
        return self.common.scores(layers, states) - LETTER * self.letters[tokens].sum(1)

    def _text(self, tokens: Sequence[int]) -> str:
        return "".join(self.names[token].removesuffix(WORD_END) for token in tokens)


def is_plain(name: str) -> bool:
    """Whether a token is made of the letters a to z and digits."""
    text = name.removesuffix(WORD_END)
    return text.isascii() and text.isalnum() and text == text.lower()
