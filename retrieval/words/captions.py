"""The words of a caption, one after the other: each explains what those before it leave over.

Words of one caption share the traces that it leaves, and a word's neighbours lie near the same traces. So words are
not ranked side by side: the best is taken, then that which adds most to it, until none adds anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.words.likelihood import CommonStates
from loradex.retrieval.words.prompts import Candidates, Template, with_beginning

COMPARED: Final = 64  # candidates that are compared in full at each step, after a quick look at all
MIN_GAIN: Final = 5.0  # of a further word


@dataclass(frozen=True, slots=True)
class Found:
    """A candidate that belongs to the caption.

    Attributes:
        row: of the candidate; None for a prompt that names nothing.
        gain: what it adds to the score of those before it.
        share: its likelihood among the candidates of its step.
    """

    row: int | None
    gain: float
    share: float


@dataclass(frozen=True, slots=True)
class Opening:
    """How a caption may begin: with a candidate in a template, or with a prompt that names nothing.

    Attributes:
        rows: (n,), the candidates that were compared in full.
        scores: (n,), of each in the template that fits it best.
        templates: (n,), the number of that template.
    """

    rows: Tensor
    scores: Tensor
    templates: Tensor


def compare_openings(
    common: CommonStates, templates: Sequence[Template], layers: Sequence[Tensor], candidates: Candidates, count: int
) -> Opening:
    """Compare the ``count`` candidates that a quick look finds best in all templates."""
    quick = common.quick_scores(layers, candidates.ends) - candidates.handicaps
    rows = quick.topk(min(count, len(quick))).indices
    in_templates = torch.stack(
        [
            common.scores(layers, with_beginning(template, states[rows]))
            for template, states in zip(templates, candidates.states, strict=True)
        ]
    )
    scores, numbers = in_templates.max(0)
    return Opening(rows, scores - candidates.handicaps[rows], numbers)


def grow_caption(
    common: CommonStates,
    templates: Sequence[Template],
    layers: Sequence[Tensor],
    candidates: Candidates,
    opening: Opening,
    nothing: Tensor,
    most: int,
    temperature: float,
) -> list[Found]:
    """Find up to ``most`` words of a caption.

    Args:
        common: of the text encoder.
        templates: those of the candidates.
        layers: the row spaces of a LoRA.
        candidates: among which words are looked for; each is found once at most.
        opening: what ``compare_openings`` found of them.
        nothing: (n, positions, width), the centred states of prompts that name nothing; one of them may come first.
        most: the number of words.
        temperature: of the shares.
    """
    best = int(opening.scores.argmax())
    empty = common.scores(layers, nothing)
    scores = torch.cat([opening.scores, empty.max()[None]])
    share = float(torch.softmax(scores / temperature, 0).max())
    if float(empty.max()) > float(opening.scores[best]):
        states, found = nothing[int(empty.argmax())], [Found(None, float(empty.max()), share)]
    else:
        row, template = int(opening.rows[best]), int(opening.templates[best])
        states = with_beginning(templates[template], candidates.states[template, row][None])[0]
        found = [Found(row, float(opening.scores[best]), share)]
    while len(found) < most:
        known = [each.row for each in found if each.row is not None]
        quick = common.quick_scores(layers, candidates.ends, states) - candidates.handicaps
        quick[known] = -torch.inf
        rows = quick.topk(min(COMPARED, len(quick) - len(known))).indices
        if not len(rows):
            break
        gains, further = add_words(common, layers, candidates, states, rows)
        best = int(gains.argmax())
        if not float(gains[best]) > MIN_GAIN:
            break
        found.append(Found(int(rows[best]), float(gains[best]), float(torch.softmax(gains / temperature, 0).max())))
        states = torch.cat([states, further[best]])
    return found


def add_words(
    common: CommonStates, layers: Sequence[Tensor], candidates: Candidates, states: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor]:
    """What candidates (n,) add to the score of states (positions, width) that were found.

    Returns:
        The gains (n,), and the candidates' states (n, WORD_POSITIONS, width), each in the template that fits it best.
    """
    before = float(common.scores(layers, states[None]))
    further = candidates.states[:, rows].float()  # (templates, n, positions, width)
    joined = torch.cat([states.expand(*further.shape[:2], -1, -1), further], 2)
    gains, best = torch.stack([common.scores(layers, part) for part in joined]).max(0)
    return gains - before - candidates.handicaps[rows], further[best, torch.arange(len(rows))]
