"""Search: words, pictures and models in, cards out."""

from collections.abc import Sequence
from functools import partial
from html import escape
from itertools import islice
from typing import Final

import gradio as gr

from loradex.app.backend import Desk
from loradex.app.search.filters import filter_of
from loradex.app.search.query import Query, plus_and_minus
from loradex.app.web.cards import QUIET, act, chips, found_card, gallery, html, notice, plain_card
from loradex.app.web.comparison import comparison
from loradex.app.web.model_panel import Panel
from loradex.app.web.model_selection import Choice, id_of
from loradex.app.web.upload_inputs import picture_place
from loradex.index import Filter, FoundBy
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError

LONGEST_QUERY: Final = 300  # characters
MOST_SHOWN: Final = 240
STEP: Final = 24
MOST_LIKE: Final = 8  # models that a query holds
MOST_COMPARED: Final = 4
MOST_CHOICES: Final = 200
SUGGESTIONS: Final = 3000
QUESTION: Final = "What should the model draw?"
EXAMPLES: Final = (
    "a slice of pizza",
    "hound + hat",
    "something to keep the rain off",
    "a vehicle with wings",
    "fruit - red",
    "musical instrument",
)
ANY: Final = "any way"


def build(desk: Desk, panel: Panel, page: gr.Blocks) -> None:
    """The tab."""
    with gr.Row():
        box = gr.Textbox(
            "",
            label=QUESTION,
            placeholder="a slice of pizza, or: hound + hat - red",
            max_lines=1,
            scale=6,
            autofocus=True,
            elem_id="ld-query",
        )
        button = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="ld-go")
    examples = html(
        f'<div class="ld-acts">{"".join(act("write", example, f"Search for {example}", example) for example in EXAMPLES)}</div>'
    )
    with gr.Accordion("Refine: concepts, a picture, filters", open=False), gr.Row():
        with gr.Column(scale=2):
            concept = gr.Textbox("", label="One more concept", placeholder="hat", max_lines=1)
            with gr.Row():
                plus, minus = gr.Button("+ add", size="sm"), gr.Button("− subtract", size="sm")
        picture = picture_place(
            label="Like a picture", height=150, sources=["upload", "clipboard"], buttons=[], scale=2
        )
        with gr.Column(scale=3), gr.Row():
            kinds = [
                gr.Dropdown([], label=label, multiselect=True, min_width=130) for label in ("Family", "Format", "Tags")
            ]
            rank = gr.Textbox("", label="Rank", placeholder="8 or 4-16", max_lines=1, min_width=90)
            folder = gr.Textbox("", label="Folder", placeholder="full path", max_lines=1, min_width=130)
            known = gr.Dropdown([ANY, *FoundBy], value=ANY, label="Known by", min_width=110)
    likes = Choice(MOST_LIKE, partial(like_chips, desk))
    compared = Choice(MOST_COMPARED, partial(comparison, desk))
    status = gr.HTML("", elem_classes="ld-status")
    results = html(elem_id="ld-results")
    suggestions = gr.HTML("", visible="hidden")
    count = gr.State(STEP)

    asked = [box, likes.ids, picture, *kinds, rank, folder, known]
    answer, anew = (
        partial(search, desk),
        {"fn": lambda *wishes: (*search(desk, *wishes), STEP), "inputs": asked, "outputs": [results, status, count]},
    )
    changes = [control.change for control in (*kinds, known, picture)]
    gr.on([button.click, box.submit, rank.submit, folder.submit, *changes], **anew, **QUIET)
    for pressed, sign in ((plus.click, "+"), (minus.click, "-"), (concept.submit, "+")):
        pressed(partial(joined, sign), [box, concept], [box, concept], **QUIET).then(**anew, **QUIET)
    examples.write(written, None, box, **QUIET).then(**anew, **QUIET)
    results.more(lambda held: min(held + STEP, MOST_SHOWN), count, count, **QUIET).then(
        answer, [*asked, count], [results, status], **QUIET
    )
    for place in (results, panel.view, compared.place):
        likes.taken(place.like).then(**anew, **QUIET)
        compared.taken(place.compare)
    likes.dropped().then(**anew, **QUIET)
    compared.dropped()
    for place in (results, compared.place):
        panel.opens(place)

    def first(request: gr.Request) -> tuple[object, ...]:
        return fresh(desk, str(request.query_params.get("q", ""))[:LONGEST_QUERY])

    page.load(first, None, [box, *kinds, suggestions, results, status], **QUIET)


def fresh(desk: Desk, said: str) -> tuple[object, ...]:
    """What a page shows first: what its address asks for with ``?q=``, and what there is to choose from."""
    zoo = desk.loradex.zoo
    choices = (
        gr.Dropdown(choices=list(islice(zoo.counts(column), MOST_CHOICES))) for column in ("family", "format", "tag")
    )
    return (said, *choices, word_list(desk), *search(desk, said))


def search(
    desk: Desk,
    said: str,
    likes: Sequence[str] = (),
    picture: str | None = None,
    families: Sequence[str] = (),
    formats: Sequence[str] = (),
    tags: Sequence[str] = (),
    rank: str = "",
    folder: str = "",
    known: str = ANY,
    count: int = STEP,
) -> tuple[str, str]:
    """The cards of the best models and a line on them; without a query, a look into the zoo."""
    loradex = desk.loradex
    try:
        if len(said) > LONGEST_QUERY:
            return notice(
                f"query: expected at most {LONGEST_QUERY} characters, found {len(said):,}; say it shorter", "ld-warn"
            ), ""
        by = None if known == ANY else known
        where = filter_of(
            families or (), formats or (), tags or (), rank.strip() or None, folder.strip() or None, found_by=by
        )
        texts, minus = plus_and_minus(said)
        if not (texts or likes or picture):
            if minus:
                return notice(
                    "query: expected something to look for, found only what to leave out; add what the model should draw",
                    "ld-warn",
                ), ""
            return browse(desk, where, count)
        query = Query.of(texts, minus, [picture] if picture else (), likes)
        found = loradex.search(query, count, where=where)
    except (LoradexError, ZooError) as error:
        message = str(error).replace(picture, "picture") if picture else str(error)
        return notice(message, "ld-warn"), ""
    cards = [found_card(hit, loradex.zoo_folder) for hit in found.hits]
    more = len(cards) == count < MOST_SHOWN
    line = f"{len(cards)} models{' (there are more)' if more else ''}, best first · {found.took_ms:.0f} ms"
    return gallery(cards, "No model fits these filters.") + (more_button() if more else ""), line


def browse(desk: Desk, where: Filter, count: int) -> tuple[str, str]:
    """Some models of the zoo."""
    zoo, folder = desk.loradex.zoo, desk.loradex.zoo_folder
    models = list(islice(zoo.models(where), count + 1))
    cards = [plain_card(model, folder) for model in models[:count]]
    more = len(models) > count < MOST_SHOWN
    empty = (
        "No model fits these filters."
        if where
        else "The zoo is empty. Open Library and name the folder that holds your LoRAs."
    )
    line = f"A look into the zoo: {len(cards)} of {len(zoo):,} models. Say above what the model should draw."
    return gallery(cards, empty) + (more_button() if more else ""), line


def more_button() -> str:
    """A button for more models."""
    return f'<p style="text-align:center">{act("more", "", "Show more models", "show more")}</p>'


def joined(sign: str, said: str, word: str) -> tuple[str, str]:
    """The search box with one more concept, and the concept's box empty again."""
    word = word.strip()
    if not word:
        return said, ""
    return (f"{said.strip()} {sign} {word}" if said.strip() or sign == "-" else word), ""


def written(event: gr.EventData) -> str:
    """The example that was clicked."""
    return id_of(event)[:LONGEST_QUERY]


def like_chips(desk: Desk, ids: Sequence[str]) -> str:
    """The models that a query holds, each with a button that takes it out."""
    said = []
    for id in ids:
        try:
            name = desk.loradex.zoo.get(id).name
        except ZooError:
            name = id
        said.append(f"{chips([f'like {name}'], 'own')}{act('drop', id, f'Leave {name} out of the query', '✕')}")
    return f'<div class="ld-chips">{"".join(said)}</div>' if said else ""


def word_list(desk: Desk) -> str:
    """What the search box completes: the labels of the space and the tags of the zoo."""
    encoder, zoo = desk.loradex.encoder, desk.loradex.zoo
    labels = encoder.default_labels.names if encoder.has_labels else ()
    words = dict.fromkeys(word for word in (*labels, *zoo.counts("tag")) if word.isprintable() and len(word) <= 40)
    return f'<datalist id="ld-suggestions" data-words="{escape(chr(10).join(islice(words, SUGGESTIONS)))}"></datalist>'
