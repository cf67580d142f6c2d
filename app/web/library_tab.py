"""Library: folders are indexed, and told what became of their files; duplicates; the zoo's health."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final

import gradio as gr

from loradex.app.backend import Desk, Run, State
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.search.lookalikes import Library, Like
from loradex.app.web.cards import QUIET, bar, counted, html, notice, plain_card, table, text
from loradex.app.web.model_panel import Panel
from loradex.index import FoundBy, Model
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError

MOST_LISTED: Final = 200
MOST_GROUPS: Final = 50
TICK: Final = 0.7  # seconds


def build(desk: Desk, panel: Panel, page: gr.Blocks, head_of: Callable[[], str], head: gr.HTML) -> None:
    """The tab."""
    gr.Markdown(
        "### Add a folder of LoRAs\nIts files are read where they lie and never changed. Files that were read before cost one look."
    )
    with gr.Row():
        folders = gr.Textbox(
            "",
            label="Folders on the server's machine, one a line",
            placeholder="/home/me/ComfyUI/models/loras",
            max_lines=6,
            scale=5,
        )
        start = gr.Button("Index", variant="primary", scale=0, min_width=110)
        stop = gr.Button("Stop", scale=0, min_width=90, interactive=False)
    progress = html(elem_id="ld-run")
    clock = gr.Timer(TICK, active=False)
    shown = [progress, clock, start, stop, head]

    def tick() -> tuple[str, gr.Timer, gr.Button, gr.Button, str]:
        runs = desk.run.state is State.RUNNING
        return (
            run_view(desk.run),
            gr.Timer(active=runs),
            gr.Button(interactive=not runs),
            gr.Button(interactive=runs),
            head_of(),
        )

    def begin(said: str) -> tuple[str, gr.Timer, gr.Button, gr.Button, str]:
        try:
            desk.index(said.splitlines())
        except LoradexError as error:
            return notice(str(error), "ld-warn"), *tick()[1:]
        return tick()

    start.click(begin, folders, shown, **QUIET)
    folders.submit(begin, folders, shown, **QUIET)
    stop.click(desk.stop, None, None, **QUIET)
    clock.tick(tick, None, shown, **QUIET)
    page.load(tick, None, shown, **QUIET)
    with gr.Row():
        look = gr.Button("Find duplicates")
        check = gr.Button("Check the zoo's health")
        folders_button = gr.Button("List folders")
    found = html(elem_id="ld-found")
    look.click(lambda: duplicates_view(desk), None, found, **QUIET | {"show_progress": "full"})
    check.click(lambda: health_view(desk), None, found, **QUIET | {"show_progress": "full"})
    folders_button.click(lambda: folders_view(desk), None, found, **QUIET)
    panel.opens(found)


def run_view(run: Run) -> str:
    """How a run stands, and what became of its files."""
    share = run.done / run.total if run.total else 0.0
    match run:
        case Run(state=State.RUNNING):
            going = f'<p class="ld-why">{escape(run.doing)} {run.done:,} of {run.total:,} · {text(run.file)}</p>{bar(share, f"{share:.0%}")}'
            return going + (understood(run.answer) if run.answer else "")
        case Run(state=State.STOPPED):
            return notice(
                f"Stopped after {run.done:,} of {run.total:,} files. What was read is kept; index again to go on."
            )
        case Run(answer=IndexAnswer() as answer):
            new = f"{counted(answer.added, 'new model')}, {answer.updated:,} read again, {answer.moved:,} moved, {answer.copies:,} saved twice"
            return notice(f"Done: {new}, {counted(answer.unchanged, 'file')} unchanged.") + understood(answer)
    return notice(run.reason, "ld-warn") if run.reason else ""


def understood(answer: IndexAnswer) -> str:
    """Which files are known by their weights, which by their metadata alone, which not at all, and what would change that."""
    titles = {FoundBy.WEIGHTS: "understood by their weights", FoundBy.METADATA: "known by their metadata alone"}
    parts = [
        listing(titles[by], [(Path(file).name, family) for file, family in known.items()])
        for by, known in answer.understood.items()
        if known
    ]
    if answer.advice:
        parts.append(notice(answer.advice))
    if answer.refused:
        parts.append(listing("refused, and why", [(reason, "") for reason in answer.refused.values()], is_open=True))
    if answer.missing:
        parts.append(listing("missing since last time", [(file, "") for file in answer.missing]))
    return "".join(parts)


def listing(title: str, rows: Sequence[tuple[str, str]], *, is_open: bool = False) -> str:
    """Lines under a heading that says how many there are."""
    lines = "".join(f"<tr><td>{text(name, 400)}</td><td>{text(said)}</td></tr>" for name, said in rows[:MOST_LISTED])
    more = f"<p class='ld-why'>and {len(rows) - MOST_LISTED:,} more</p>" if len(rows) > MOST_LISTED else ""
    what = f"<summary><b>{counted(len(rows), 'file')} {escape(title)}</b></summary>"
    return f'<details{" open" if is_open else ""}>{what}<table class="ld-facts">{lines}</table>{more}</details>'


def duplicates_view(desk: Desk) -> str:
    """Groups of models with one update, side by side; pairs that share much; merges."""
    loradex = desk.loradex
    try:
        answer = Library.of_zoo(loradex.zoo_folder, lambda done, total, name: None).duplicates()
    except (LoradexError, ZooError) as error:
        return notice(str(error), "ld-warn")
    counts = f"{counted(len(answer.groups), 'group')} with one update, {counted(len(answer.related), 'related pair')}, {counted(len(answer.merges), 'merge')}"
    parts = [notice(f"{counted(answer.compared, 'model')}: {counts}.")]
    for group in answer.groups[:MOST_GROUPS]:
        cards = [
            plain_card(one_copy(loradex.zoo.get(like.id), like), loradex.zoo_folder, alike(like)) for like in group
        ]
        parts.append(f'<div class="ld-group">{"".join(cards)}</div>')
    rows = [
        (f"{other.cosine:.2f}", f"{text(one.name)} and {text(other.name)}: {escape(other.relation)}")
        for one, other in answer.related[:MOST_LISTED]
    ]
    rows += [
        (
            "merge",
            f"{text(merge.name)} = " + " + ".join(f"{part.weight:.2f} × {text(part.name)}" for part in merge.parts),
        )
        for merge in answer.merges
    ]
    return "".join(parts) + table(rows)


def one_copy(model: Model, like: Like) -> Model:
    """A model under the name of one of its files."""
    return replace(model, name=Path(like.path).stem, path=like.path) if like.path else model


def alike(like: Like) -> str:
    """How a file is like the first of its group, and where it lies."""
    return f"{escape(like.relation)}, strength {like.strength:.2f}<br>{text(like.path or like.name, 200)}"


def health_view(desk: Desk) -> str:
    """What a check of every row, checksum and drawing finds."""
    zoo = desk.loradex.zoo
    try:
        problems = zoo.verify()
    except ZooError as error:
        problems = [str(error)]
    size = sum(path.stat().st_size for path in zoo.folder.rglob("*") if path.is_file())
    by = zoo.counts("found_by")
    rows = [
        ("models", f"{len(zoo):,}: {by.get('weights', 0):,} by weights, {by.get('metadata', 0):,} by metadata alone"),
        ("families", ", ".join(f"{text(family)} {count:,}" for family, count in zoo.counts("family").items())),
        ("formats", ", ".join(f"{text(format)} {count:,}" for format, count in zoo.counts("format").items())),
        ("space", text(zoo.space)),
        ("folder", text(zoo.folder, 400)),
        ("on the disk", f"{size / 1e6:,.1f} MB"),
    ]
    verdict = notice("Sound: every row, checksum, word and engine is as it was written.") if not problems else ""
    said = "".join(notice(problem, "ld-warn") for problem in problems[:MOST_LISTED])
    mend = notice("“loradex zoo rebuild” mends what can be made anew.") if problems else ""
    return verdict + said + mend + table(rows)


def folders_view(desk: Desk) -> str:
    """The folders whose files the zoo knows."""
    files = desk.loradex.zoo.known_files().values()
    counts = Counter(str(Path(file.path).parent) for file in files)
    refused = Counter(str(Path(file.path).parent) for file in files if file.refusal)
    rows = [
        (counted(count, "file"), text(folder, 400) + f", {refused[folder]:,} of them refused" * bool(refused[folder]))
        for folder, count in counts.most_common(MOST_LISTED)
    ]
    return table(rows) if rows else notice("No folder was indexed into this zoo yet.")
