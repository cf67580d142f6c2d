"""The words that labelled files were trained with: read in the background, as a base model may have to be prepared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final

import gradio as gr

from loradex.app.backend import Backend, WordsRun
from loradex.app.web.elements import EVENT_OPTIONS, bar, html_view, label_bars, notice, warning
from loradex.app.web.label_downloads import download_links
from loradex.app.web.labelled_file import LabelledFile
from loradex.app.words import FileWords
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.words import MIN_PROBABILITY

POLL_INTERVAL: Final = 0.5  # seconds
MAX_WORDS: Final = 20  # for each file
MIN_SHOWN: Final = 0.05  # probability of a word that is shown
JOB_LIFETIME: Final = 900  # seconds; uploads are kept as long


@dataclass
class WordsJob:
    """Reading of the words of the files that a person labelled last.

    Attributes:
        shown: the number of files whose words the page shows.
    """

    files: list[LabelledFile]
    run: WordsRun
    shown: int = 0


class WordReading:
    """Starts to read words once files are labelled, and polls until all are read; its view shows the progress."""

    def __init__(self, backend: Backend) -> None:
        """Build the view of the progress."""
        self.backend = backend
        self.view = html_view(elem_id="ld-reading")
        self.job = gr.State(None, time_to_live=JOB_LIFETIME, delete_callback=stop_job)
        self.timer = gr.Timer(POLL_INTERVAL, active=False)

    def start_after(self, labelled: Any, inputs: Sequence[Any], views: Sequence[gr.HTML]) -> None:
        """Start after an event; inputs: labelled files, own words, how many words; views: cards, links to downloads."""
        outputs = [self.view, self.timer, *views]
        labelled.then(self.start, [*inputs, self.job], [self.job, *outputs], **EVENT_OPTIONS)
        self.timer.tick(self.poll, self.job, outputs, **EVENT_OPTIONS)

    def start(
        self, files: list[LabelledFile], words_text: str, count: float, previous: WordsJob | None
    ) -> tuple[Any, ...]:
        """Start a job; the session's previous one is stopped."""
        stop_job(previous)
        if not files:
            return None, *idle()
        try:
            number = min(MAX_WORDS, max(1, int(count)))
            run = self.backend.read_words([file.path for file in files], number, lines_of(words_text))
        except LoradexError as error:
            return None, *idle(warning(str(error)))
        job = WordsJob(files, run)
        return job, *self.poll(job)

    def poll(self, job: WordsJob | None) -> tuple[Any, ...]:
        """Show the progress, and the words that were read since; the timer runs until all are."""
        if job is None:
            return idle()
        ended = job.run.ended.is_set()  # before the results are counted: none is added after
        read, is_new = len(job.run.results), len(job.run.results) > job.shown
        job.shown = read
        cards = cards_of(job.files, job.run.results[:read]) if is_new else gr.skip()
        if not ended:
            return self.progress(read, len(job.files)), gr.Timer(active=True), cards, gr.skip()
        message = warning(str(job.run.error)) if job.run.error else ""
        answers, space = [file.answer for file in job.files], self.backend.loradex.encoder.space.name
        return message, gr.Timer(active=False), cards, download_links(answers, space, job.run.results)

    def progress(self, read: int, total: int) -> str:
        """How many files were read, or how far the base model is prepared."""
        if preparing := self.backend.preparing:
            done, needed = preparing
            line = f"Preparing to read words with the text encoder of a base model, once: {done:,} of {needed:,} texts"
            return f'<p class="ld-why">{line}</p>{bar(done / needed, f"{done / needed:.0%}")}'
        return f'<p class="ld-why">Reading the words that the files were trained with: {read:,} of {total:,} files</p>'


def idle(message: str = "") -> tuple[Any, ...]:
    """Show a message in place of the progress, and change nothing else."""
    return message, gr.Timer(active=False), gr.skip(), gr.skip()


def stop_job(job: WordsJob | None) -> None:
    """Stop a job after the current file."""
    if job:
        job.run.stop.set()


def lines_of(text: str) -> list[str]:
    """The lines of a text that are not empty, without spaces around them."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def cards_of(files: Iterable[LabelledFile], words: Iterable[FileWords] = ()) -> str:
    """The cards of labelled files, with the words of the first of them that were read so far."""
    cards = (
        file.card[0] + (words_section(file, read) if read else "") + file.card[1]
        for file, read in zip_longest(files, words)
    )
    return f'<div class="ld-files">{"".join(cards)}</div>'


def words_section(file: LabelledFile, read: FileWords) -> str:
    """The words that a file was trained with, or why there are none; nothing if its card says why already."""
    if read.reason and read.reason == file.answer.reason:
        return ""
    shown = [(word.word, word.probability) for word in read.words if word.probability >= MIN_SHOWN]
    is_sure = any(probability >= MIN_PROBABILITY for _, probability in shown)
    if not read.readable:
        found = notice((read.reason or "").replace(file.path, file.name))
    elif is_sure or (shown and (read.nothing or 0.0) < MIN_PROBABILITY):
        found = ("" if is_sure else notice("unknown: no word is more likely than not")) + label_bars(shown)
    else:
        found = notice(f"no words to be read ({100 * (read.nothing or 0.0):.0f} %)")
    return f"<h4>Trained with</h4>{found}"
