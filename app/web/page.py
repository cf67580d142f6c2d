"""The page: a tab to search the zoo and a tab to label files. Nothing on it comes from another host."""

import socket
import sys
from pathlib import Path
from typing import Final

import gradio as gr

from app.service import Loradex
from index.errors import ZooError
from retrieval.errors import LoradexError

LONGEST_QUERY: Final = 300  # characters
MOST_FILES: Final = 32
LARGEST_UPLOAD: Final = "1gb"
UPLOADS_LIVE: Final = 900  # seconds
NO_DRAWING: Final = Path(__file__).parent / "no-drawing.png"
EXAMPLES: Final = ("a slice of pizza", "a hound", "something to keep the rain off", "a vehicle with wings", "musical instrument")
FONTS: Final = ("ui-sans-serif", "system-ui", "sans-serif")
CSS: Final = """
footer {display: none !important}
.drawings .thumbnail-lg {aspect-ratio: auto; padding-bottom: 2.6rem}
.drawings .caption-label {inset: auto 0 0 0; max-width: 100%; border: 0; background: none; text-align: center; white-space: pre-line; opacity: 1}
"""


def search_gallery(loradex: Loradex, text: str, k: float) -> list[tuple[str, str]]:
    """The drawings of the best models, each with its name, score and family.

    Raises:
        gr.Error: the query cannot be answered, in one line.
    """
    try:
        hits = loradex.search(text[:LONGEST_QUERY], int(k)).hits
    except (LoradexError, ZooError) as error:
        raise gr.Error(str(error)) from None
    shown = []
    for hit in hits:
        drawing = loradex.zoo_folder / hit.model.preview if hit.model.preview else NO_DRAWING
        shown.append((str(drawing if drawing.is_file() else NO_DRAWING), f"{hit.model.name}\n{hit.score:.2f} · {hit.model.family}"))
    return shown


def label_files(loradex: Loradex, files: list[str] | None, words: str) -> tuple[dict[str, float] | None, list[list[str]]]:
    """Probabilities of the first file's labels, and a row for each file.

    Raises:
        gr.Error: there is no file, there are too many, or the labels cannot be used.
    """
    if not files or len(files) > MOST_FILES:
        raise gr.Error(f"files: expected 1 to {MOST_FILES}, found {len(files or [])}; drop some .safetensors files")
    labels = [line.strip() for line in words.splitlines() if line.strip()] or None
    try:
        answers = list(loradex.label(files, labels))
    except LoradexError as error:
        raise gr.Error(str(error)) from None
    rows = []
    for answer in answers:
        said = ", ".join(f"{found.label} {found.probability:.0%}" for found in answer.labels)
        reason = (answer.reason or "").replace(answer.file, Path(answer.file).name)
        rows.append([Path(answer.file).name, answer.family, f"unknown: {reason}" if answer.abstained else said])
    first = {found.label: found.probability for found in answers[0].labels}
    return first or None, rows


def build_page(loradex: Loradex) -> gr.Blocks:
    """The Gradio page over an encoder and a zoo."""
    with gr.Blocks(title="Loradex", analytics_enabled=False, delete_cache=(UPLOADS_LIVE, UPLOADS_LIVE)) as page:
        gr.Markdown("# Loradex\nFind fine-tuned image models by what their weights say.")
        with gr.Tab("Search"):
            with gr.Row():
                query = gr.Textbox(label="What should the model draw?", placeholder=EXAMPLES[0], max_length=LONGEST_QUERY, scale=4, autofocus=True)
                count = gr.Slider(1, 60, value=12, step=1, label="Models")
                button = gr.Button("Search", variant="primary", scale=0)
            drawings = gr.Gallery(
                label="What the models draw", show_label=False, columns=6, height="auto", object_fit="contain", elem_classes="drawings", interactive=False
            )
            gr.Examples([[example] for example in EXAMPLES], query)
            gr.on([button.click, query.submit], lambda text, k: search_gallery(loradex, text, k), [query, count], drawings, api_name="search")
        with gr.Tab("Label"):
            with gr.Row():
                files = gr.File(label="LoRA files (.safetensors)", file_count="multiple", file_types=[".safetensors"])
                words = gr.Textbox(label="Your labels, one a line (empty: the 828 concepts of the miniature)", lines=5, max_length=200_000)
            go = gr.Button("Label", variant="primary")
            first = gr.Label(label="First file", num_top_classes=5)
            table = gr.Dataframe(label="All files", headers=["file", "family", "labels"], wrap=True, interactive=False)
            go.click(lambda chosen, text: label_files(loradex, chosen, text), [files, words], [first, table], api_name="label")
    return page


def serve_page(loradex: Loradex, host: str, port: int) -> None:
    """Serve the page until it is interrupted; models are loaded before the address is told.

    Raises:
        LoradexError, ZooError: the encoder or the zoo cannot be loaded.
    """
    loradex.search("warm up", 1)
    page = build_page(loradex).queue(max_size=64, default_concurrency_limit=2)
    theme = gr.themes.Soft(font=FONTS, font_mono=("ui-monospace", "monospace"))
    page.launch(
        server_name=host,
        server_port=port or free_port(host),
        allowed_paths=[str(loradex.zoo_folder / "previews"), str(NO_DRAWING)],
        max_file_size=LARGEST_UPLOAD,
        theme=theme,
        css=CSS,
        share=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    sys.stderr.write(f"Loradex serves {loradex.zoo_folder} on {page.local_url} (Ctrl+C ends it)\n")
    page.block_thread()


def free_port(host: str) -> int:
    """A port that nothing listens on."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])
