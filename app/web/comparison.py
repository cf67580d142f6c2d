"""Models side by side, and how near their directions lie."""

from collections.abc import Sequence

from loradex.app.backend import Desk
from loradex.app.web.cards import act, drawing, label_bars, labels_of, notice, ranks_of, table, text, words_of
from loradex.index import Model
from loradex.index.errors import ZooError


def comparison(desk: Desk, ids: Sequence[str]) -> str:
    """A column for each model, with its cosine to the first; nothing where none is chosen."""
    if not ids:
        return ""
    loradex = desk.loradex
    try:
        models = [loradex.zoo.get(id) for id in ids]
        vectors = loradex.zoo.vectors_of(ids)
    except ZooError as error:
        return notice(str(error), "ld-warn")
    columns = []
    for model in models:
        both = model is not models[0] and model.id in vectors and models[0].id in vectors
        near = f"{vectors[models[0].id] @ vectors[model.id]:.2f}" if both else ""
        columns.append(column(model, drawing(model, loradex.zoo_folder), near))
    hint = notice("Choose “compare” on another model to put it beside this one.") if len(models) == 1 else ""
    return f'<section class="ld-side" aria-label="Side by side">{"".join(columns)}{hint}</section>'


def column(model: Model, drawn: str, near: str) -> str:
    """One model."""
    rows = [
        ("cosine with the first", near),
        ("family", text(model.family)),
        ("rank", ranks_of(model).removeprefix("rank ")),
        ("format", text(model.facts.get("format") or "")),
        ("made for", text(model.concept or "")),
        ("tags", ", ".join(text(tag, 40) for tag in words_of(model, "tags")[:8])),
        ("trigger words", ", ".join(text(word, 40) for word in words_of(model, "trigger_words")[:8])),
    ]
    acts = (
        act("open", model.id, "Open", "open")
        + act("like", model.id, "More like this", "more like this")
        + act("drop", model.id, "Take away", "✕")
    )
    return (
        f'<div><div class="ld-drawing">{drawn}</div><h3>{text(model.name)}</h3>{label_bars(labels_of(model))}'
        f'{table((name, value) for name, value in rows if value != "<bdi></bdi>")}<div class="ld-acts">{acts}</div></div>'
    )
