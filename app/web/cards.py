"""Models as cards in a gallery."""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import quote

from loradex.app.models import evidence_words, known_by, model_path, stored_pairs, stored_words
from loradex.app.previews import preview_path
from loradex.app.reporting import pluralize
from loradex.app.search.ranking import SearchHit
from loradex.app.web.elements import (
    MAX_TEXT_LENGTH,
    action_button,
    bar,
    chips,
    copy_button,
    escape_text,
    quote_attribute,
)
from loradex.index import Model

MAX_TAGS: Final = 3  # on a card
MAX_WORDS: Final = 4  # on a card
SCORE_HELP: Final = "Log-odds that the model draws what is asked for, if it was indexed with calibration; else a cosine"
WORDS_HELP: Final = "Words of its training prompts, read from its weights, each with its probability"
PROBABILITY_HELP: Final = "Calibrated probability that the model draws what the query says"


def hit_card(hit: SearchHit, zoo: Path) -> str:
    """Card of a search hit: its probability or score, by which evidence it was found, and which file answers."""
    if hit.score is None:
        score = bar(0, "its name or tags match" if hit.scores else "known by name or tags only")
    elif hit.probability is None:
        score = bar(hit.score, f"score {hit.score:.2f}", SCORE_HELP)
    else:
        score = bar(hit.probability, f"{hit.probability:.0%} likely", PROBABILITY_HELP)
    concept = f" · made for {escape_text(hit.model.concept, 40)}" if hit.model.concept else ""
    note = f"found by {escape(evidence_words(hit.matched))}{concept}"
    shown = replace(hit.model, name=hit.name, path=hit.place.path if hit.place else hit.model.path)
    return card(shown, zoo, score, note, place_line(hit, zoo) + copies_line(hit.copies))


def words_line(model: Model) -> str:
    """The words that a model was trained with, as its weights say; nothing if none were read."""
    words = ", ".join(
        f"{escape_text(word, 30)} {100 * probability:.0f} %" for word, probability in stored_words(model)[:MAX_WORDS]
    )
    return f'<p class="ld-why" title={quote_attribute(WORDS_HELP)}>trained with: {words}</p>' if words else ""


def place_line(hit: SearchHit, zoo: Path) -> str:
    """The file that answers a query, if it is not the model's own."""
    path = hit.place.path if hit.place else None
    if path is None or path == model_path(hit.model, str(zoo)):
        return ""
    short = "/".join(path.replace("\\", "/").split("/")[-2:])
    return f'<p class="ld-why" title={quote_attribute(path)}>file: {escape_text(short, 60)}</p>'


def copies_line(copies: Sequence[Model]) -> str:
    """The names of the first models that hold the same update as a hit."""
    if not copies:
        return ""
    names = ", ".join(escape_text(copy.name, 30) for copy in copies[:3])
    return f'<p class="ld-why">and {pluralize(len(copies), "model")} with the same update: {names}</p>'


def plain_card(model: Model, zoo: Path, note: str = "") -> str:
    """Card of a model without a score; ``note`` is HTML."""
    default = f"made for {escape_text(model.concept, 40)}" if model.concept else f"known by {escape(known_by(model))}"
    return card(model, zoo, "", note or default)


def card(model: Model, zoo: Path, score: str, note: str, more: str = "") -> str:
    """Card of a model: preview, name, score, family, rank, tags and action buttons."""
    name = model.name or model.id
    short_name = name[:MAX_TEXT_LENGTH]
    words = [word for word in (model.family, format_ranks(model), *string_list(model, "tags")[:MAX_TAGS]) if word]
    buttons = (
        action_button("like", model.id, f"More like {short_name}", "similar")
        + action_button("compare", model.id, f"Compare {short_name} side by side", "compare")
        + copy_button(model_path(model, str(zoo)), "copy path")
    )
    return (
        f'<article class="ld-card">{action_button("open", model.id, f"Open {short_name}", preview(model, zoo), "ld-open")}'
        f'<h3 title={quote_attribute(name)}>{escape_text(name)}</h3>{score}<div class="ld-chips">{chips(words)}</div>'
        f'<p class="ld-why">{note}</p>{words_line(model)}{more}<div class="ld-acts">{buttons}</div></article>'
    )


def preview(model: Model, zoo: Path) -> str:
    """The preview of a model; if it has none, the first letter of its name."""
    path = preview_path(model, zoo)
    if path is None:
        letter = next((character for character in model.name if character.isalnum()), "?")
        return f'<span class="ld-blank" aria-hidden="true">{escape_text(letter.upper())}</span>'
    # The modification time keeps browsers from showing a cached preview after it has changed.
    address = f"drawings/{quote(model.id, safe='')}.png?v={path.stat().st_mtime_ns:x}"
    description = quote_attribute(f"What {model.name[:MAX_TEXT_LENGTH]} draws")
    return f'<img src="{address}" alt={description} width="128" height="128" decoding="async">'


def gallery(cards: Sequence[str], empty: str) -> str:
    """Cards in a grid; if there are none, the text ``empty``."""
    return f'<div class="ld-grid">{"".join(cards)}</div>' if cards else f'<p class="ld-empty">{escape(empty)}</p>'


def format_ranks(model: Model) -> str:
    """The ranks of a model: ``rank 8`` or ``rank 4–16``; "" if they are unknown."""
    stored = model.facts.get("ranks")
    ranks = [rank for rank in stored if isinstance(rank, int)] if isinstance(stored, list) else []
    return "" if not ranks else f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {min(ranks)}–{max(ranks)}"


def string_list(model: Model, fact: str) -> list[str]:
    """A fact of a model as a list of strings; a zoo may hold any JSON there."""
    stored = model.facts.get(fact)
    return [str(word) for word in stored] if isinstance(stored, list) else []


def stored_labels(model: Model) -> list[tuple[str, float]]:
    """The labels that the zoo holds of a model with their probabilities, best first."""
    return stored_pairs(model, "labels")
