"""Models as cards, in HTML: all that comes from a file or a query is escaped here, and nowhere else."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import gradio as gr

from loradex.app.models import path_of
from loradex.app.previews import drawing_of
from loradex.app.search.ranking import Found
from loradex.index import FoundBy, Model

MOST_CHIPS: Final = 3
LONGEST: Final = 80  # characters of a name or word on a card
WHY: Final[dict[tuple[FoundBy, ...], str]] = {
    (FoundBy.WEIGHTS,): "by its weights",
    (FoundBy.METADATA,): "by its words alone",
}
# What buttons in the HTML ask for goes to Python as the event of that name: data-act="open" data-id="..." becomes trigger('open', {id: ...}).
EVENTS: Final = """
const events = ['open', 'like', 'compare', 'drop', 'draw', 'write', 'more'];
element.addEventListener('click', (click) => {
  const button = click.target.closest('[data-act]');
  if (button && events.includes(button.dataset.act)) trigger(button.dataset.act, {id: button.dataset.id || ''});
});
"""


QUIET: Final[dict[str, Any]] = {
    "show_progress": "hidden",
    "queue": False,
    "api_visibility": "private",
}  # how functions are called: by one request


def html(value: str = "", **options: Any) -> gr.HTML:
    """A place for HTML whose buttons fire events."""
    return gr.HTML(value, js_on_load=EVENTS, apply_default_css=False, elem_classes="ld-place", **options)


def text(value: object, longest: int = LONGEST) -> str:
    """A text as HTML on its own direction, shortened, without control characters."""
    said = "".join(c if c.isprintable() else " " for c in str(value))
    return f"<bdi>{escape(said[: longest - 1] + '…' if len(said) > longest else said)}</bdi>"


def attribute(value: object) -> str:
    """A text as the value of an attribute, in quotes."""
    return f'"{escape("".join(c if c.isprintable() else " " for c in str(value)))}"'


def act(what: str, id: str, label: str, said: str, kind: str = "ld-act") -> str:
    """A button that fires an event."""
    named = f"title={attribute(label)} aria-label={attribute(label)}"
    return f'<button type="button" class="{kind}" data-act="{what}" data-id={attribute(id)} {named}>{said}</button>'


def copy_button(value: str | None, said: str = "path") -> str:
    """A button that copies a text."""
    return (
        ""
        if value is None
        else f'<button type="button" class="ld-act" data-copy={attribute(value)} title={attribute(f"Copy {value}")}>{escape(said)}</button>'
    )


def chips(words: Iterable[object], kind: str = "") -> str:
    """Short words side by side."""
    return "".join(f'<span class="ld-chip {kind}">{text(word, 40)}</span>' for word in words)


def bar(share: float, said: str) -> str:
    """A bar for a share from 0 to 1, and what it says."""
    percent = round(100 * min(1.0, max(0.0, share)))
    return f'<div class="ld-bar"><i style="width:{percent}%"></i><b>{escape(said)}</b></div>'


def drawing(model: Model, zoo: Path) -> str:
    """What a model draws, or its first letter; with a version, so that a new drawing is not mistaken for an old one."""
    path = drawing_of(model, zoo)
    if path is None:
        letter = next((c for c in model.name if c.isalnum()), "?")
        return f'<span class="ld-blank" aria-hidden="true">{text(letter.upper())}</span>'
    address = f"drawings/{quote(model.id, safe='')}.png?v={path.stat().st_mtime_ns:x}"
    return f'<img src="{address}" alt={attribute(f"What {model.name[:LONGEST]} draws")} width="128" height="128" decoding="async">'


def ranks_of(model: Model) -> str:
    """The ranks of a model in words."""
    ranks = (
        [rank for rank in model.facts.get("ranks") or [] if isinstance(rank, int)]
        if isinstance(model.facts.get("ranks"), list)
        else []
    )
    return "" if not ranks else f"rank {ranks[0]}" if len(ranks) == 1 else f"rank {min(ranks)}–{max(ranks)}"


def words_of(model: Model, name: str) -> list[str]:
    """A list of words among a model's facts; a zoo may hold anything there."""
    found = model.facts.get(name)
    return [str(word) for word in found] if isinstance(found, list) else []


def card(model: Model, zoo: Path, score: str, why: str, more: str = "") -> str:
    """One model: its drawing, name, score, facts, and what can be done with it."""
    name = model.name or model.id
    said = [word for word in (model.family, ranks_of(model), *words_of(model, "tags")[:MOST_CHIPS]) if word]
    acts = (
        act("like", model.id, f"More like {name[:LONGEST]}", "similar")
        + act("compare", model.id, f"Put {name[:LONGEST]} side by side with others", "compare")
        + copy_button(path_of(model, str(zoo)))
    )
    return (
        f'<article class="ld-card">{act("open", model.id, f"Open {name[:LONGEST]}", drawing(model, zoo), "ld-open")}'
        f'<h3 title={attribute(name)}>{text(name)}</h3>{score}<div class="ld-chips">{chips(said)}</div>'
        f'<p class="ld-why">{why}</p>{more}<div class="ld-acts">{acts}</div></article>'
    )


def found_card(hit: Found, zoo: Path) -> str:
    """A hit: how likely it is what was asked for, its cosine, and why it was found."""
    if hit.found_by is FoundBy.METADATA and len(hit.matched) == 1:
        score = bar(0, "not read by weights") if hit.score == 1 else bar(hit.score, f"cosine {hit.score:.2f}")
    elif hit.probability is None:
        score = bar(hit.score, f"cosine {hit.score:.2f}")
    else:
        score = bar(hit.probability, f"{hit.probability:.0%} likely · cosine {hit.score:.2f}")
    concept = f" · made for {text(hit.model.concept, 40)}" if hit.model.concept else ""
    why = f"found {WHY.get(hit.matched, 'by its weights and its words')}{concept}"
    copies = (
        f'<p class="ld-why">and {len(hit.copies)} with the same update: {", ".join(text(copy.name, 30) for copy in hit.copies[:3])}</p>'
        if hit.copies
        else ""
    )
    return card(hit.model, zoo, score, why, copies)


def plain_card(model: Model, zoo: Path, said: str = "") -> str:
    """A model that no query found."""
    concept = f"made for {text(model.concept, 40)}" if model.concept else f"known by {escape(str(model.found_by))}"
    return card(model, zoo, "", said or concept)


def gallery(cards: Sequence[str], empty: str) -> str:
    """Cards in a grid."""
    return f'<div class="ld-grid">{"".join(cards)}</div>' if cards else f'<p class="ld-empty">{escape(empty)}</p>'


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Names and what was found; values are HTML already."""
    return f'<table class="ld-facts">{"".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows if value)}</table>'


def counted(number: int, thing: str) -> str:
    """A number of things: ``1 file``, ``2 files``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def labels_of(model: Model) -> list[tuple[str, float]]:
    """The labels that a zoo keeps of a model, likeliest first."""
    kept = model.facts.get("labels")
    pairs = (
        [pair for pair in kept if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int | float)]
        if isinstance(kept, list)
        else []
    )
    return [(str(label), float(likely)) for label, likely in pairs]


def label_bars(labels: Iterable[tuple[str, float]]) -> str:
    """Labels with their probabilities as bars."""
    return "".join(
        f'<div class="ld-label"><span>{text(label, 40)}</span>{bar(likely, f"{likely:.0%}")}</div>'
        for label, likely in labels
    )


def notice(message: str, kind: str = "ld-note") -> str:
    """A sentence in a box."""
    return f'<p class="{kind}" role="status">{escape(message)}</p>'


def facts_table(facts: Mapping[str, object]) -> str:
    """What a file says of itself."""
    rows = []
    for name, value in facts.items():
        if isinstance(value, list):
            rows.append(
                (
                    name.replace("_", " "),
                    ", ".join(text(item, 60) for item in value[:20]) + (", …" if len(value) > 20 else ""),
                )
            )
        elif value not in (None, ""):
            rows.append((name.replace("_", " "), text(value, 400)))
    return table(rows)
