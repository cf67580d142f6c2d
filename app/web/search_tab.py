"""The Search tab: finds models by words, an image, other models and filters, and shows them as cards."""

from collections.abc import Sequence
from functools import partial
from html import escape
from itertools import islice
from typing import Final

import gradio as gr

from loradex.app.backend import Backend
from loradex.app.models import EVIDENCE_WORDS
from loradex.app.search.filters import parse_filter
from loradex.app.search.query import Query, parse_search_box
from loradex.app.web.cards import gallery, hit_card, plain_card
from loradex.app.web.comparison import render_comparison
from loradex.app.web.elements import EVENT_OPTIONS, action_button, chips, html_view, warning
from loradex.app.web.model_panel import ModelPanel
from loradex.app.web.model_selection import ModelSelection, event_id
from loradex.app.web.upload_inputs import image_input
from loradex.index import Evidence, Filter
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError

MAX_QUERY_LENGTH: Final = 300  # characters
PAGE_SIZE: Final = 24  # models shown at first, and more by each click on "show more"
MAX_SHOWN: Final = 240
MAX_LIKED: Final = 8  # models in a query
MAX_COMPARED: Final = 4
MAX_FILTER_CHOICES: Final = 200
MAX_SUGGESTIONS: Final = 3000
MAX_SUGGESTION_LENGTH: Final = 40  # characters
QUERY_LABEL: Final = "What should the model draw?"
EXAMPLES: Final = (
    "a slice of pizza",
    "hound + hat",
    "something to keep the rain off",
    "a vehicle with wings",
    "fruit - red",
    "musical instrument",
)


def build(backend: Backend, panel: ModelPanel, page: gr.Blocks) -> None:
    """Build the tab.

    Args:
        backend: the zoo and the encoder that are searched.
        panel: opens a model that is clicked; its "more like this" and "compare" buttons act on this tab.
        page: its load event fills in the filters' choices and the first results.
    """
    with gr.Row():
        query = gr.Textbox(
            "",
            label=QUERY_LABEL,
            placeholder="a slice of pizza, or: hound + hat - red",
            max_lines=1,
            scale=6,
            autofocus=True,
            elem_id="ld-query",
        )
        button = gr.Button("Search", variant="primary", scale=0, min_width=120, elem_id="ld-go")
    buttons = "".join(action_button("write", example, f"Search for {example}", example) for example in EXAMPLES)
    examples = html_view(f'<div class="ld-acts">{buttons}</div>')
    with gr.Accordion("Refine: more concepts, an image, filters", open=False), gr.Row():
        with gr.Column(scale=2):
            concept = gr.Textbox("", label="One more concept", placeholder="hat", max_lines=1)
            with gr.Row():
                add, subtract = gr.Button("+ add", size="sm"), gr.Button("− subtract", size="sm")
        image = image_input(
            label="Similar to an image", height=150, sources=["upload", "clipboard"], buttons=[], scale=2
        )
        with gr.Column(scale=3), gr.Row():
            dropdowns = [
                gr.Dropdown([], label=label, multiselect=True, min_width=140)
                for label in ("Base model family", "File format", "Tags")
            ]
            rank = gr.Textbox("", label="LoRA rank", placeholder="8 or 4-16", max_lines=1, min_width=90)
            folder = gr.Textbox("", label="Folder", placeholder="full path", max_lines=1, min_width=130)
            kinds = [
                (words + " only" * (kind is Evidence.METADATA), str(kind)) for kind, words in EVIDENCE_WORDS.items()
            ]
            found_by = gr.Dropdown(kinds, label="Known by", multiselect=True, min_width=180)
    liked = ModelSelection(MAX_LIKED, partial(liked_chips, backend))
    compared = ModelSelection(MAX_COMPARED, partial(render_comparison, backend))
    status = gr.HTML("", elem_classes="ld-status")
    results = html_view(elem_id="ld-results")
    suggestions = gr.HTML("", visible="hidden")
    count = gr.State(PAGE_SIZE)

    # In the order of the parameters of ``search``, to which Gradio passes their values by position.
    inputs = [query, liked.ids, image, *dropdowns, rank, folder, found_by]

    def search_first_page(*values: object) -> tuple[str, str, int]:
        return *search(backend, *values), PAGE_SIZE  # type: ignore[arg-type]

    search_event = {"fn": search_first_page, "inputs": inputs, "outputs": [results, status, count]} | EVENT_OPTIONS
    changes = [component.change for component in (*dropdowns, found_by, image)]
    gr.on([button.click, query.submit, rank.submit, folder.submit, *changes], **search_event)
    for event, sign in ((add.click, "+"), (subtract.click, "-"), (concept.submit, "+")):
        event(partial(add_concept, sign), [query, concept], [query, concept], **EVENT_OPTIONS).then(**search_event)
    # ``write``, ``more``, ``like``, ``compare`` and ``drop`` are events of ``elements.EVENT_SCRIPT``.
    examples.write(clicked_example, None, query, **EVENT_OPTIONS).then(**search_event)
    results.more(lambda shown: min(shown + PAGE_SIZE, MAX_SHOWN), count, count, **EVENT_OPTIONS).then(
        partial(search, backend), [*inputs, count], [results, status], **EVENT_OPTIONS
    )
    for view in (results, panel.view, compared.view):
        liked.add_on(view.like).then(**search_event)
        compared.add_on(view.compare)
    liked.remove_on_drop().then(**search_event)
    compared.remove_on_drop()
    for view in (results, compared.view):
        panel.open_models_of(view)

    def load(request: gr.Request) -> tuple[object, ...]:
        return first_view(backend, str(request.query_params.get("q", ""))[:MAX_QUERY_LENGTH])

    page.load(load, None, [query, *dropdowns, suggestions, results, status], **EVENT_OPTIONS)


def first_view(backend: Backend, text: str) -> tuple[object, ...]:
    """What a new page shows: the query of its address (``?q=``), the filters' choices, suggestions, and results."""
    zoo = backend.loradex.zoo
    dropdowns = (
        gr.Dropdown(choices=list(islice(zoo.counts(column), MAX_FILTER_CHOICES)))
        for column in ("family", "format", "tag")
    )
    return (text, *dropdowns, suggestion_list(backend), *search(backend, text))


def search(
    backend: Backend,
    text: str,
    liked: Sequence[str] = (),
    image: str | None = None,
    families: Sequence[str] = (),
    formats: Sequence[str] = (),
    tags: Sequence[str] = (),
    rank: str = "",
    folder: str = "",
    found_by: Sequence[str] = (),
    count: int = PAGE_SIZE,
) -> tuple[str, str]:
    """Return the ``count`` best models as cards, and a status line; without a query, the first by id.

    The parameters after ``backend`` are the ``inputs`` of ``build``, in the same order.
    """
    loradex = backend.loradex
    try:
        if len(text) > MAX_QUERY_LENGTH:
            message = f"query: expected at most {MAX_QUERY_LENGTH} characters, found {len(text):,}; shorten it"
            return warning(message), ""
        where = parse_filter(
            families or (),
            formats or (),
            tags or (),
            rank.strip() or None,
            folder.strip() or None,
            found_by=found_by or (),
        )
        plus, minus = parse_search_box(text)
        if not (plus or liked or image):
            if minus:
                message = "query: expected something to search for, found only what to subtract; add what the model should draw"
                return warning(message), ""
            return browse(backend, where, count)
        query = Query.from_parts(plus, minus, [image] if image else (), liked)
        answer = loradex.search(query, count, where=where)
    except (LoradexError, ZooError) as error:
        message = str(error).replace(image, "picture") if image else str(error)
        return warning(message), ""
    cards = [hit_card(hit, loradex.zoo_folder) for hit in answer.hits]
    more = len(cards) == count < MAX_SHOWN
    status = f"{len(cards)} models{' (there are more)' if more else ''}, best first · {answer.took_ms:.0f} ms"
    return gallery(cards, "No model fits these filters.") + (more_button() if more else ""), status


def browse(backend: Backend, where: Filter, count: int) -> tuple[str, str]:
    """Return the first ``count`` models of the zoo by id as cards, and a status line."""
    zoo, folder = backend.loradex.zoo, backend.loradex.zoo_folder
    models = list(islice(zoo.models(where), count + 1))
    cards = [plain_card(model, folder) for model in models[:count]]
    more = len(models) > count < MAX_SHOWN
    empty = (
        "No model fits these filters."
        if where
        else "The zoo is empty. Open the Library tab and index the folder with your LoRAs."
    )
    status = f"Showing {len(cards)} of the {len(zoo):,} indexed models. Describe above what the model should draw."
    return gallery(cards, empty) + (more_button() if more else ""), status


def more_button() -> str:
    """A button that shows more models."""
    return f'<p style="text-align:center">{action_button("more", "", "Show more models", "show more")}</p>'


def add_concept(sign: str, text: str, concept: str) -> tuple[str, str]:
    """Append a concept to the query with a sign; returns the query, and the emptied box of the concept."""
    concept = concept.strip()
    if not concept:
        return text, ""
    return (f"{text.strip()} {sign} {concept}" if text.strip() or sign == "-" else concept), ""


def clicked_example(event: gr.EventData) -> str:
    """The example query that was clicked."""
    return event_id(event)[:MAX_QUERY_LENGTH]


def liked_chips(backend: Backend, ids: Sequence[str]) -> str:
    """The models in the query, each with a button that removes it."""
    parts = []
    for id in ids:
        try:
            name = backend.loradex.zoo.get(id).name
        except ZooError:
            name = id
        parts.append(chips([f"like {name}"], "own") + action_button("drop", id, f"Remove {name} from the query", "✕"))
    return f'<div class="ld-chips">{"".join(parts)}</div>' if parts else ""


def suggestion_list(backend: Backend) -> str:
    """The words that the search box completes: default labels of the space, and tags of the zoo."""
    encoder, zoo = backend.loradex.encoder, backend.loradex.zoo
    labels = encoder.default_labels.names if encoder.has_labels else ()
    words = dict.fromkeys(
        word for word in (*labels, *zoo.counts("tag")) if word.isprintable() and len(word) <= MAX_SUGGESTION_LENGTH
    )
    data = escape("\n".join(islice(words, MAX_SUGGESTIONS)))
    return f'<datalist id="ld-suggestions" data-words="{data}"></datalist>'
