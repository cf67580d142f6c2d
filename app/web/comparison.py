"""Models side by side, with the cosine similarity of each to the first."""

from collections.abc import Sequence

from loradex.app.backend import Backend
from loradex.app.models import stored_words
from loradex.app.web.cards import format_ranks, preview, stored_labels, string_list
from loradex.app.web.elements import action_button, escape_text, label_bars, notice, table, warning
from loradex.index import Model
from loradex.index.errors import ZooError


def render_comparison(backend: Backend, ids: Sequence[str]) -> str:
    """A column for each model; nothing if no model is selected."""
    if not ids:
        return ""
    loradex = backend.loradex
    try:
        models = [loradex.zoo.get(id) for id in ids]
        vectors = loradex.zoo.vectors_by_id(ids)
    except ZooError as error:
        return warning(str(error))
    first = models[0]
    columns = []
    for model in models:
        comparable = model is not first and model.id in vectors and first.id in vectors
        cosine = f"{vectors[first.id] @ vectors[model.id]:.2f}" if comparable else ""
        columns.append(render_column(model, preview(model, loradex.zoo_folder), cosine))
    hint = notice("Click “compare” on another model to put it beside this one.") if len(models) == 1 else ""
    return f'<section class="ld-side" aria-label="Side by side">{"".join(columns)}{hint}</section>'


def render_column(model: Model, preview_html: str, cosine: str) -> str:
    """One model: preview, predicted labels, facts and action buttons."""
    rows = [
        ("cosine with the first", cosine),
        ("family", escape_text(model.family)),
        ("rank", format_ranks(model).removeprefix("rank ")),
        ("format", escape_text(model.facts.get("format") or "")),
        ("made for", escape_text(model.concept or "")),
        ("trained with", ", ".join(escape_text(word, 40) for word, _ in stored_words(model)[:8])),
        ("tags", ", ".join(escape_text(tag, 40) for tag in string_list(model, "tags")[:8])),
        ("trigger words", ", ".join(escape_text(word, 40) for word in string_list(model, "trigger_words")[:8])),
    ]
    facts = table((name, value) for name, value in rows if value != escape_text(""))
    buttons = (
        action_button("open", model.id, "Open", "open")
        + action_button("like", model.id, "More like this", "more like this")
        + action_button("drop", model.id, "Remove from the comparison", "✕")
    )
    return (
        f'<div><div class="ld-drawing">{preview_html}</div><h3>{escape_text(model.name)}</h3>'
        f'{label_bars(stored_labels(model))}{facts}<div class="ld-acts">{buttons}</div></div>'
    )
