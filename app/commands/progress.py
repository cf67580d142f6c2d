"""Progress on stderr, drawn in a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import track as rich_track
from rich.status import Status
from rich.text import Text

from loradex.app.commands.tables.text import plain

if TYPE_CHECKING:
    from loradex.app.reporting import ProgressCallback

BAR_WIDTH = 20
OTHER_WIDTH = 36  # columns that the counts, the rate and the remaining time take at most
MANY_FILES = 20  # fewer are done before a bar is of use

T = TypeVar("T")


class RateColumn(ProgressColumn):
    """Files per second."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def spinner(message: str) -> Status:
    """A spinner for work of unknown length."""
    return Console(stderr=True).status(message)


@contextmanager
def progress_bar(verb: str = "Reading") -> Iterator[ProgressCallback]:
    """Yield a function that reports progress, drawn as a bar."""
    columns = (
        TextColumn(verb),
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(),
        RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    room = max(console.width - len(verb) - BAR_WIDTH - OTHER_WIDTH, 1)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total, file: progress.update(
            task, completed=done, total=total, description=plain(file[-room:])
        )


def words_progress(progress: ProgressCallback) -> Callable[[int, int], None]:
    """Return what reports how many words a base model's text encoder has read, in the bar of ``progress``."""
    return lambda done, total: progress(done, total, "candidate words, which are kept for later")


def spelling_progress(progress: ProgressCallback) -> Callable[[int, int], None]:
    """Return what reports how far the spelling of a file's words is, in the bar of ``progress``."""
    return lambda done, total: progress(done, total, "Spelling")


def track(answers: Iterable[T], total: int) -> Iterable[T]:
    """Yield answers about files as they come; a bar shows how many of ``total`` are done, if they are many."""
    console = Console(stderr=True)
    return rich_track(answers, "Reading", total=total, console=console, transient=True, disable=total < MANY_FILES)
