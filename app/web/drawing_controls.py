"""Draw: what a model does, beside what its base model draws of the same wish without it."""

import base64
import io
import threading
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
from PIL import Image

from loradex.app.backend import Desk
from loradex.app.models import path_of
from loradex.app.web.cards import QUIET, bar, html, notice, table, text
from loradex.index import ZooError
from loradex.retrieval.errors import LoradexError

TICK = 0.5  # seconds


@dataclass
class Job:
    """One drawing under way; what came of it is HTML."""

    stop: threading.Event = field(default_factory=threading.Event)
    done: int = 0
    total: int = 0
    result: str | None = None


class DrawBox:
    """The controls, for the subject that a state names: a model's id, or the path of a file that was sent."""

    def __init__(self, desk: Desk, subject: gr.State) -> None:
        """Build it where it stands."""
        self.desk, self.job = desk, gr.State(None)
        with gr.Accordion("Draw what it does", open=False):
            prompt = gr.Textbox(
                "", label="Prompt", placeholder="its trigger words, or the base's own prompt", max_lines=2
            )
            with gr.Row():
                strength = gr.Slider(-2, 2, value=1, step=0.1, label="Strength")
                seed = gr.Number(0, label="Seed (0: the usual)", precision=0, minimum=0, maximum=2**32 - 1)
            with gr.Row():
                draw, stop = gr.Button("Draw", variant="primary", size="sm"), gr.Button("Stop", size="sm")
            self.place = html(elem_id="ld-drawn")
        self.clock = gr.Timer(TICK, active=False)
        self.shown = [self.place, self.clock]
        draw.click(self.start, [subject, prompt, strength, seed, self.job], [self.job, *self.shown], **QUIET)
        stop.click(self.stop, self.job, self.shown, **QUIET)
        self.clock.tick(self.look, self.job, self.shown, **QUIET)

    def start(
        self, subject: str | Path, prompt: str, strength: float, seed: float, before: Job | None
    ) -> tuple[Job | None, str, gr.Timer]:
        """Begin; what was begun before is stopped."""
        if before:
            before.stop.set()
        if not subject:
            return None, notice("Open a model first."), gr.Timer(active=False)
        job = Job()
        self.desk.start(lambda: self.run(job, subject, prompt, strength, seed), job.stop)
        return job, *self.look(job)

    def stop(self, job: Job | None) -> tuple[str, gr.Timer]:
        """Stop it."""
        if job:
            job.stop.set()
        return self.look(job)

    def look(self, job: Job | None) -> tuple[str, gr.Timer]:
        """How it stands."""
        if job is None:
            return "", gr.Timer(active=False)
        share = job.done / job.total if job.total else 0.0
        going = f'<p class="ld-why">Drawing, or waiting for a turn</p>{bar(share, f"{job.done} of {job.total} steps")}'
        return (going, gr.Timer(active=True)) if job.result is None else (job.result, gr.Timer(active=False))

    def run(self, job: Job, subject: str | Path, prompt: str, strength: float, seed: float) -> None:
        """Draw, in a thread of its own."""
        from loradex.app.drawing.options import SEED, Wish

        def progress(done: int, total: int) -> None:
            job.done, job.total = done, total

        path: str | None = None
        try:
            path = (
                str(subject)
                if isinstance(subject, Path)
                else path_of(self.desk.loradex.zoo.get(subject), str(self.desk.loradex.zoo_folder))
            )
            if path is None or "://" in path:
                job.result = notice(
                    "model: expected a file on the server's machine, found none; index it from a folder", "ld-warn"
                )
                return
            wish = Wish(prompt, int(seed) or SEED, strength=float(strength))
            pair = self.desk.studio.draw(Path(path), wish, stop=job.stop, progress=progress)
            sides = "".join(
                side(said, drawing.picture) for said, drawing in (("without it", pair.without), ("with it", pair.drawn))
            )
            facts = table(
                [
                    ("prompt", text(pair.wish.prompt, 300)),
                    ("seed", str(pair.wish.seed)),
                    ("steps", str(pair.wish.steps)),
                ]
            )
            job.result = f'<div class="ld-pair">{sides}</div>{facts}{"".join(notice(doubt) for doubt in pair.doubts)}'
        except (LoradexError, ZooError, OSError, TypeError, ValueError) as error:
            job.result = notice(str(error).replace(path, Path(path).name) if path else str(error), "ld-warn")
        finally:
            job.result = job.result or notice(
                "drawing: expected to finish, found an error of Loradex itself; see the server's log", "ld-warn"
            )


def side(said: str, picture: Image.Image) -> str:
    """One picture, within the page."""
    content = io.BytesIO()
    picture.save(content, "PNG")
    encoded = base64.b64encode(content.getvalue()).decode()
    return f'<figure><img src="data:image/png;base64,{encoded}" alt="drawn {said}"><figcaption>{said}</figcaption></figure>'
