"""Building blocks of the page's HTML. Text from files, zoos and queries is escaped here: it never becomes markup."""

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import gradio as gr

from loradex.app.reporting import readable

MAX_TEXT_LENGTH: Final = 80  # characters of a name or word
MAX_LISTED_VALUES: Final = 20  # of a fact that is a list
# A click on <button data-act="open" data-id="ID"> triggers the event "open" of the component with {id: ID}.
EVENT_SCRIPT: Final = """
const events = ['open', 'like', 'compare', 'drop', 'draw', 'write', 'more'];
element.addEventListener('click', (click) => {
  const button = click.target.closest('[data-act]');
  if (button && events.includes(button.dataset.act)) trigger(button.dataset.act, {id: button.dataset.id || ''});
});
"""
# How Gradio calls a function on an event: by a single request, without its queue, its public API and its spinner.
EVENT_OPTIONS: Final[dict[str, Any]] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}


def html_view(value: str = "", **options: Any) -> gr.HTML:
    """A component that shows HTML and triggers events when its action buttons are clicked."""
    return gr.HTML(value, js_on_load=EVENT_SCRIPT, apply_default_css=False, elem_classes="ld-place", **options)


def escape_text(value: object, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Convert any value to HTML text: shortened, without control characters, with a text direction of its own."""
    text = printable(value)
    return f"<bdi>{escape(text[: max_length - 1] + '…' if len(text) > max_length else text)}</bdi>"


def quote_attribute(value: object) -> str:
    """Convert any value to the quoted value of an HTML attribute."""
    return f'"{escape(printable(value))}"'


def printable(value: object) -> str:
    """The text of a value, with spaces for its control characters."""
    return "".join(character if character.isprintable() else " " for character in readable(str(value)))


def action_button(action: str, id: str, title: str, content: str, css_class: str = "ld-act") -> str:
    """A button that triggers the event ``action`` with an id; ``content`` is HTML."""
    titles = f"title={quote_attribute(title)} aria-label={quote_attribute(title)}"
    return (
        f'<button type="button" class="{css_class}" data-act="{action}" data-id={quote_attribute(id)} {titles}>'
        f"{content}</button>"
    )


def copy_button(value: str | None, label: str) -> str:
    """A button that copies a text to the clipboard; nothing if there is no text."""
    if value is None:
        return ""
    title = quote_attribute(f"Copy {value}")
    return f'<button type="button" class="ld-act" data-copy={quote_attribute(value)} title={title}>{escape(label)}</button>'


def chips(words: Iterable[object], css_class: str = "") -> str:
    """Short words in rounded boxes."""
    return "".join(f'<span class="ld-chip {css_class}">{escape_text(word, 40)}</span>' for word in words)


def bar(fraction: float, label: str, title: str = "") -> str:
    """A bar filled by a fraction from 0 to 1, with a label."""
    percent = round(100 * min(1.0, max(0.0, fraction)))
    tooltip = f" title={quote_attribute(title)}" if title else ""
    return f'<div class="ld-bar"{tooltip}><i style="width:{percent}%"></i><b>{escape(label)}</b></div>'


def label_bars(labels: Iterable[tuple[str, float]]) -> str:
    """Labels with their probabilities as bars."""
    return "".join(
        f'<div class="ld-label"><span>{escape_text(label, 40)}</span>{bar(probability, f"{probability:.0%}")}</div>'
        for label, probability in labels
    )


def table(rows: Iterable[tuple[str, str]]) -> str:
    """A table of names and values; values are HTML, and rows without a value are left out."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in rows if value)
    return f'<table class="ld-facts">{cells}</table>'


def facts_table(facts: Mapping[str, object]) -> str:
    """A table of a file's facts, whatever values they have."""
    rows = []
    for name, value in facts.items():
        if isinstance(value, list):
            values = ", ".join(escape_text(item, 60) for item in value[:MAX_LISTED_VALUES])
            rows.append((name.replace("_", " "), values + ", …" * (len(value) > MAX_LISTED_VALUES)))
        elif value not in (None, ""):
            rows.append((name.replace("_", " "), escape_text(value, 400)))
    return table(rows)


def notice(message: str) -> str:
    """A message in a neutral box."""
    return f'<p class="ld-note" role="status">{escape(message)}</p>'


def warning(message: str) -> str:
    """A message in a warning box."""
    return f'<p class="ld-warn" role="status">{escape(message)}</p>'
