"""The Library tab: indexes folders and shows the result, finds duplicates, and checks the zoo."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Backend, IndexingRun, State
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.models import evidence_words
from loradex.app.reporting import pluralize
from loradex.app.search.lookalikes import Library, LookalikeHit
from loradex.app.web.base_models import render_families
from loradex.app.web.cards import plain_card
from loradex.app.web.elements import EVENT_OPTIONS, bar, escape_text, html_view, notice, table, warning
from loradex.app.web.model_panel import ModelPanel
from loradex.app.web.waiting import render_run_ways, render_waiting
from loradex.index import Evidence, Model
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError

MAX_LISTED: Final = 200
MAX_GROUPS: Final = 50
POLL_INTERVAL: Final = 0.7  # seconds
EVIDENCE: Final = {
    Evidence.PICTURE: "known by what they draw, read from their weights",
    Evidence.WORDS: "known by words in their weights",
    Evidence.PREVIEW: "known by their previews",
    Evidence.METADATA: "known by name or tags only",
}
REPAIR_HINT: Final = (
    "Run “loradex zoo rebuild”: it repairs search words, tags and index engine, and removes damaged models. "
    "Then index their folders again."
)


def build(
    backend: Backend, panel: ModelPanel, page: gr.Blocks, render_header: Callable[[], str], header: gr.HTML
) -> None:
    """Build the tab; the page's header is updated while a run fills the zoo."""
    gr.Markdown(
        "### Index a folder of LoRAs\n"
        "The files are read where they are and never changed. What is learned about them is kept in a zoo, the index that all tabs use. "
        "Files that have not changed since the last run are skipped."
    )
    families, waiting = html_view(), html_view(elem_id="ld-waiting")
    page.load(lambda: render_families(backend), None, families, **EVENT_OPTIONS)
    page.load(lambda: render_waiting(backend), None, waiting, **EVENT_OPTIONS)
    with gr.Row():
        folders = gr.Textbox(
            "",
            label="Folders on the server's machine, one per line",
            placeholder="/home/me/ComfyUI/models/loras",
            max_lines=6,
            scale=5,
        )
        start = gr.Button("Index", variant="primary", scale=0, min_width=110)
        stop = gr.Button("Stop", scale=0, min_width=90, interactive=False)
    progress = html_view(elem_id="ld-run")
    timer = gr.Timer(POLL_INTERVAL, active=False)
    outputs = [progress, timer, start, stop, header]

    def poll() -> tuple[str, gr.Timer, gr.Button, gr.Button, str]:
        running = backend.indexing_run.state is State.RUNNING
        return (
            render_run(backend.indexing_run, backend.preparing),
            gr.Timer(active=running),
            gr.Button(interactive=not running),
            gr.Button(interactive=running),
            render_header(),
        )

    def start_indexing(folders_text: str) -> tuple[str, gr.Timer, gr.Button, gr.Button, str]:
        try:
            backend.start_indexing(folders_text.splitlines())
        except LoradexError as error:
            return warning(str(error)), *poll()[1:]
        return poll()

    start.click(start_indexing, folders, outputs, **EVENT_OPTIONS)
    folders.submit(start_indexing, folders, outputs, **EVENT_OPTIONS)
    stop.click(backend.stop_indexing, None, None, **EVENT_OPTIONS)
    timer.tick(poll, None, outputs, **EVENT_OPTIONS)
    page.load(poll, None, outputs, **EVENT_OPTIONS)
    with gr.Row():
        duplicates_button = gr.Button("Find duplicates")
        check_button = gr.Button("Check the zoo")
        folders_button = gr.Button("List indexed folders")
    report = html_view(elem_id="ld-found")
    with_spinner = EVENT_OPTIONS | {"show_progress": "full"}
    duplicates_button.click(lambda: render_duplicates(backend), None, report, **with_spinner)
    check_button.click(lambda: render_zoo_check(backend), None, report, **with_spinner)
    folders_button.click(lambda: render_folders(backend), None, report, **EVENT_OPTIONS)
    panel.open_models_of(report)


def render_run(run: IndexingRun, preparing: tuple[int, int] | None = None) -> str:
    """The progress of an indexing run, or its result; ``preparing`` is how far words to be read are prepared."""
    match run:
        case IndexingRun(state=State.RUNNING):
            fraction = run.done / run.total if run.total else 0.0
            line = f"{escape(run.doing)} {run.done:,} of {run.total:,} · {escape_text(run.file)}"
            if preparing:
                line += f" · preparing to read words, once: {preparing[0]:,} of {preparing[1]:,} texts"
            result = render_files(run.answer) if run.answer else ""  # known while previews are drawn
            return f'<p class="ld-why">{line}</p>{bar(fraction, f"{fraction:.0%}")}{result}'
        case IndexingRun(state=State.STOPPED):
            return notice(f"Stopped after {run.done:,} of {run.total:,} files. Click Index to go on from there.")
        case IndexingRun(answer=IndexAnswer() as answer):
            changes = f"{pluralize(answer.added, 'new model')}, {answer.updated:,} updated, {answer.moved:,} moved"
            rest = f"{pluralize(answer.copies, 'more file')} with the same weights, {answer.unchanged:,} unchanged"
            return notice(f"Done: {changes}; {rest}.") + render_files(answer)
    return warning(run.reason) if run.reason else ""


def render_files(answer: IndexAnswer) -> str:
    """The files of a run by the weightiest evidence, advice about those that no expert read, and what was refused."""
    parts = [
        file_list(EVIDENCE[found_by], [(Path(file).name, family) for file, family in families.items()])
        for found_by, families in answer.understood.items()
        if families
    ]
    if answer.advice:
        parts.append(notice(answer.advice) + render_run_ways(answer))
    if answer.words_advice:
        parts.append(notice(answer.words_advice))
    if answer.refused:
        parts.append(file_list("refused", [(reason, "") for reason in answer.refused.values()], is_open=True))
    if answer.no_previews:
        parts.append(notice(f"The pictures beside LoRAs were not placed: {answer.no_previews}."))
    if answer.bad_pictures:
        parts.append(
            file_list(
                "left out: pictures that cannot be used", [(reason, "") for reason in answer.bad_pictures.values()]
            )
        )
    if answer.missing:
        parts.append(file_list("missing (indexed earlier)", [(file, "") for file in answer.missing]))
    return "".join(parts)


def file_list(title: str, rows: Sequence[tuple[str, str]], *, is_open: bool = False) -> str:
    """A list that can be unfolded, under a heading with the number of files; each row has a text and a remark."""
    lines = "".join(
        f"<tr><td>{escape_text(text, 400)}</td><td>{escape_text(remark)}</td></tr>"
        for text, remark in rows[:MAX_LISTED]
    )
    more = f"<p class='ld-why'>and {len(rows) - MAX_LISTED:,} more</p>" if len(rows) > MAX_LISTED else ""
    summary = f"<summary><b>{pluralize(len(rows), 'file')} {escape(title)}</b></summary>"
    return f'<details{" open" if is_open else ""}>{summary}<table class="ld-facts">{lines}</table>{more}</details>'


def render_duplicates(backend: Backend) -> str:
    """Groups of files with the same update side by side, then related pairs and merges."""
    loradex = backend.loradex
    try:
        answer = Library.from_zoo(loradex.zoo_folder, lambda done, total, name: None).duplicates()
    except (LoradexError, ZooError) as error:
        return warning(str(error))
    groups, pairs = pluralize(len(answer.groups), "group"), pluralize(len(answer.related), "related pair")
    parts = [
        notice(
            f"{pluralize(answer.compared, 'model')} compared: {groups} with the same update (the change to the base model), "
            f"{pairs}, {pluralize(len(answer.merges), 'merge')}."
        )
    ]
    for group in answer.groups[:MAX_GROUPS]:
        cards = [
            plain_card(as_file(loradex.zoo.get(like.id), like), loradex.zoo_folder, relation_note(like))
            for like in group
        ]
        parts.append(f'<div class="ld-group">{"".join(cards)}</div>')
    rows = [
        (
            f"{other.cosine:.2f}",
            f"{escape_text(model.name)} and {escape_text(other.name)}: {escape(other.relation)}",
        )
        for model, other in answer.related[:MAX_LISTED]
    ]
    for merge in answer.merges:
        total = " + ".join(f"{part.weight:.2f} × {escape_text(part.name)}" for part in merge.parts)
        rows.append(("merge", f"{escape_text(merge.name)} = {total}"))
    return "".join(parts) + table(rows)


def as_file(model: Model, like: LookalikeHit) -> Model:
    """A model under the name of one of its files."""
    return replace(model, name=Path(like.path).stem, path=like.path) if like.path else model


def relation_note(like: LookalikeHit) -> str:
    """How a file relates to the first of its group, and its path."""
    return f"{escape(like.relation)}, strength {like.strength:.2f}<br>{escape_text(like.path or like.name, 200)}"


def render_zoo_check(backend: Backend) -> str:
    """The problems found in the zoo's files, and what the zoo holds."""
    zoo = backend.loradex.zoo
    try:
        problems = zoo.verify()
    except ZooError as error:
        problems = [str(error)]
    size = sum(path.stat().st_size for path in zoo.folder.rglob("*") if path.is_file())
    evidence = zoo.counts("found_by")
    rows = [
        ("models", f"{len(zoo):,}"),
        ("known by", ", ".join(f"{evidence_words([kind])} {count:,}" for kind, count in evidence.items())),
        ("families", ", ".join(f"{escape_text(family)} {count:,}" for family, count in zoo.counts("family").items())),
        ("formats", ", ".join(f"{escape_text(format)} {count:,}" for format, count in zoo.counts("format").items())),
        ("text-image space", escape_text(zoo.space)),
        ("folder", escape_text(zoo.folder, 400)),
        ("size on disk", f"{size / 1e6:,.1f} MB"),
    ]
    if not problems:
        return notice("No problems found: records, checksums, search words and index engine are intact.") + table(rows)
    found = "".join(warning(problem) for problem in problems[:MAX_LISTED])
    return found + notice(REPAIR_HINT) + table(rows)


def render_folders(backend: Backend) -> str:
    """The folders of the files that the zoo has read, with their numbers of files."""
    files = backend.loradex.zoo.known_files().values()
    counts = Counter(str(Path(file.path).parent) for file in files)
    refused = Counter(str(Path(file.path).parent) for file in files if file.refusal)
    rows = [
        (pluralize(count, "file"), escape_text(folder, 400) + f", {refused[folder]:,} refused" * bool(refused[folder]))
        for folder, count in counts.most_common(MAX_LISTED)
    ]
    return table(rows) if rows else notice("No folder has been indexed into this zoo yet.")
