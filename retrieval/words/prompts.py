"""Prompts into which candidate words are put, and prompts that name nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.text_states import END_ID, PromptEncoder
from loradex.retrieval.words.likelihood import POSITIONS, CommonStates

TEMPLATES: Final = ("{}", "a photo of a {}", "best quality, {}")  # nobody knows how a LoRA's captions begin
WORD_POSITIONS: Final = 4  # behind the beginning of a template, that are kept of a word: its tokens and the end
# Prompts that LoRAs are trained with where pictures have no captions; they name nothing.
NOTHING: Final = (
    "", "a photo", "a picture", "an image", "an icon", "a drawing", "an emoji", "a painting", "an illustration",
    "a photo of", "a picture of", "an image of", "art", "artwork", "a rendering", "a sketch", "a portrait", "a logo",
    "best quality", "masterpiece", "masterpiece, best quality", "high quality", "simple background", "an object",
    "a thing", "something", "a style", "in the style of", "style", "a person", "1girl", "1boy",
)  # fmt: skip
NAMES_NOTHING: Final = frozenset(word.strip(",") for prompt in NOTHING for word in prompt.split())
ENCODED_AT_ONCE: Final = 1024  # texts between two reports of progress

Progress = Callable[[int, int], None]  # called with: texts encoded, texts in all


@dataclass(frozen=True, slots=True)
class Template:
    """A beginning of captions.

    Attributes:
        text: with ``{}`` for a word.
        beginning: (positions, width), the centred states before the word.
    """

    text: str
    beginning: Tensor


@dataclass(frozen=True, slots=True)
class Candidates:
    """Words with their states.

    Attributes:
        words: the candidates.
        ends: (n, width), the centred state of the end behind each word alone.
        states: (templates, n, WORD_POSITIONS, width), the centred states of each word in each template, from the word
            on.
        handicaps: (n,), what a word's scores are reduced by, as it was chosen among many.
        silent: words that may explain a part of a caption, and are no answers.
    """

    words: tuple[str, ...]
    ends: Tensor
    states: Tensor
    handicaps: Tensor
    silent: frozenset[str] = frozenset()

    def joined(self, other: "Candidates") -> "Candidates":
        """These candidates and others."""
        return Candidates(
            (*self.words, *other.words),
            torch.cat([self.ends, other.ends]),
            torch.cat([self.states, other.states], 1),
            torch.cat([self.handicaps, other.handicaps]),
            self.silent | other.silent,
        )


def prompt_states(encoder: PromptEncoder, texts: Sequence[str], length: int = POSITIONS) -> Tensor:
    """States (n, length, width) of texts, behind the start."""
    return encoder.states(encoder.tokenize(texts), min(length + 1, encoder.length))[:, 1:]


def make_templates(encoder: PromptEncoder, common: CommonStates) -> tuple[Template, ...]:
    """Encode the beginnings of the templates."""
    templates = []
    for text in TEMPLATES:
        beginning = text.partition("{}")[0]
        tokens = encoder.tokenize([beginning])[0][0]
        count = int((tokens == END_ID).int().argmax()) - 1
        states = common.centred(prompt_states(encoder, [beginning])[:, :count])[0]
        templates.append(Template(text, states))
    return tuple(templates)


def make_candidates(
    encoder: PromptEncoder,
    common: CommonStates,
    templates: Sequence[Template],
    words: Sequence[str],
    progress: Progress = lambda done, total: None,
) -> Candidates:
    """Encode words in all templates, in half precision."""
    states = torch.empty(len(templates), len(words), WORD_POSITIONS, encoder.width, dtype=torch.float16)
    ends = torch.empty(len(words), encoder.width, dtype=torch.float16)
    total = len(templates) * len(words)
    for number, template in enumerate(templates):
        first = len(template.beginning)
        for start in range(0, len(words), ENCODED_AT_ONCE):
            some = words[start : start + ENCODED_AT_ONCE]
            tokens = encoder.tokenize([template.text.format(word) for word in some])
            encoded = common.centred(encoder.states(tokens, first + 1 + WORD_POSITIONS)[:, 1:])
            states[number, start : start + len(some)] = encoded[:, first:].half()
            if number == 0:
                place = (tokens[0] == END_ID).int().argmax(1).clamp(max=WORD_POSITIONS) - 1
                ends[start : start + len(some)] = encoded[torch.arange(len(some)), place].half()
            progress(number * len(words) + start + len(some), total)
    return Candidates(tuple(words), ends, states, torch.zeros(len(words)))


def with_beginning(template: Template, states: Tensor) -> Tensor:
    """States (n, positions, width) of words behind the beginning of a template."""
    beginning = template.beginning[None].expand(len(states), -1, -1)
    return torch.cat([beginning, states.float()], 1)
