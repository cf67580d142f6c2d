"""Controls that draw with a model, beside what its base model draws without it."""

import base64
import io
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import gradio as gr
from PIL import Image

from loradex.app.backend import Backend
from loradex.app.models import model_path
from loradex.app.web.elements import EVENT_OPTIONS, bar, escape_text, html_view, notice, table, warning
from loradex.index import ZooError
from loradex.retrieval.errors import LoradexError

POLL_INTERVAL: Final = 0.5  # seconds


@dataclass
class DrawingJob:
    """A drawing in progress; ``result`` is its HTML once it has ended."""

    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    total: int = 0
    result: str | None = None


class DrawingControls:
    """Prompt, strength, seed and buttons; a job draws in the background while a timer polls it."""

    def __init__(self, backend: Backend, subject: gr.State) -> None:
        """Build the controls; ``subject`` holds what to draw with: a model's id, or the path of an uploaded file."""
        self.backend, self.job = backend, gr.State(None)
        with gr.Accordion("Draw with this model", open=False):
            prompt = gr.Textbox(
                "",
                label="Prompt",
                placeholder="empty: its trigger words, or the default prompt of its base model",
                max_lines=2,
            )
            with gr.Row():
                strength = gr.Slider(-2, 2, value=1, step=0.1, label="Strength")
                seed = gr.Number(0, label="Seed (0: default)", precision=0, minimum=0, maximum=2**32 - 1)
            with gr.Row():
                draw, stop = gr.Button("Draw", variant="primary", size="sm"), gr.Button("Stop", size="sm")
            self.view = html_view(elem_id="ld-drawn")
        self.timer = gr.Timer(POLL_INTERVAL, active=False)
        outputs = [self.view, self.timer]
        draw.click(self.start, [subject, prompt, strength, seed, self.job], [self.job, *outputs], **EVENT_OPTIONS)
        stop.click(self.stop, self.job, outputs, **EVENT_OPTIONS)
        self.timer.tick(self.poll, self.job, outputs, **EVENT_OPTIONS)

    def start(
        self, subject: str | Path, prompt: str, strength: float, seed: float, previous: DrawingJob | None
    ) -> tuple[DrawingJob | None, str, gr.Timer]:
        """Start a job; the session's previous one is stopped."""
        if previous:
            previous.stop.set()
        if not subject:
            return None, notice("Open a model first."), gr.Timer(active=False)
        job = DrawingJob()
        self.backend.run_in_background(lambda: self.run(job, subject, prompt, strength, seed), job.stop)
        return job, *self.poll(job)

    def stop(self, job: DrawingJob | None) -> tuple[str, gr.Timer]:
        """Stop a job."""
        if job:
            job.stop.set()
        return self.poll(job)

    def poll(self, job: DrawingJob | None) -> tuple[str, gr.Timer]:
        """Show the progress or the result of a job; the timer runs until there is a result."""
        if job is None:
            return "", gr.Timer(active=False)
        if job.result is not None:
            return job.result, gr.Timer(active=False)
        fraction = job.done / job.total if job.total else 0.0
        steps = bar(fraction, f"{job.done} of {job.total} steps")
        return f'<p class="ld-why">Drawing, or waiting for another drawing to end</p>{steps}', gr.Timer(active=True)

    def run(self, job: DrawingJob, subject: str | Path, prompt: str, strength: float, seed: float) -> None:
        """Draw, and set the job's result; runs in a background thread."""
        path: str | None = None
        try:
            path = str(subject) if isinstance(subject, Path) else self.path_of(subject)
            if path is None or "://" in path:
                job.result = warning(
                    "model: expected a file on the server's machine, found none; index it from a folder"
                )
                return
            job.result = self.draw(job, Path(path), prompt, strength, seed)
        except (LoradexError, ZooError, OSError, TypeError, ValueError) as error:
            job.result = warning(str(error).replace(path, Path(path).name) if path else str(error))
        finally:
            job.result = job.result or warning(
                "drawing: expected to finish, found an error of Loradex itself; see the server's log"
            )

    def path_of(self, id: str) -> str | None:
        """The path of a model's file; None if it is unknown."""
        loradex = self.backend.loradex
        return model_path(loradex.zoo.get(id), str(loradex.zoo_folder))

    def draw(self, job: DrawingJob, file: Path, prompt: str, strength: float, seed: float) -> str:
        """Draw with a file and without it; returns both images as HTML."""
        from loradex.app.drawing.options import DEFAULT_SEED, DrawOptions

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total

        options = DrawOptions(prompt, int(seed) or DEFAULT_SEED, strength=float(strength))
        pair = self.backend.renderer.draw(file, options, stop=job.stop, progress=progress)
        figures = figure(pair.without_model.image, "base model alone") + figure(
            pair.with_model.image, "with this model"
        )
        rows = [
            ("prompt", escape_text(pair.options.prompt, 300)),
            ("seed", str(pair.options.seed)),
            ("steps", str(pair.options.steps)),
        ]
        notices = "".join(notice(message) for message in pair.warnings)
        return f'<div class="ld-pair">{figures}</div>{table(rows)}{notices}'


def figure(image: Image.Image, caption: str) -> str:
    """An image with a caption, embedded in the page."""
    content = io.BytesIO()
    image.save(content, "PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    return (
        f'<figure><img src="data:image/png;base64,{encoded}" alt="drawn {caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )
