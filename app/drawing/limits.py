"""One drawing at a time in a process, and how long it may take."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from loradex.app.drawing.errors import Busy, Stopped, TooSlow

MOST_WAITING: Final = 8
GLANCE: Final = 0.1  # seconds between two looks at whether one who waits was stopped

Progress = Callable[[int, int], None]  # steps done, steps in all


class Turns:
    """A lock with a short queue."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        """Let ``most`` callers wait."""
        self.most, self._lock, self._seats = most, threading.Lock(), threading.Semaphore(most + 1)

    @contextmanager
    def turn(self, stop: threading.Event) -> Iterator[None]:
        """Wait for the others; within, no one else draws.

        Raises:
            Busy: too many wait.
            Stopped: ``stop`` was set while waiting.
        """
        if not self._seats.acquire(blocking=False):
            raise Busy(f"drawing: expected at most {self.most} to wait, found that many; try again in a while")
        try:
            while not self._lock.acquire(timeout=GLANCE):
                refuse_stopped(stop)
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self._seats.release()


class Pace:
    """Counts the steps of a drawing, and ends it when it is stopped or takes too long."""

    def __init__(self, total: int, limit: float, stop: threading.Event, progress: Progress) -> None:
        """Expect ``total`` steps within ``limit`` seconds from now."""
        self.total, self.limit, self.stop, self.progress = total, limit, stop, progress
        self.done, self.began = 0, monotonic()

    def step(self) -> None:
        """One more is done.

        Raises:
            Stopped, TooSlow: it was the last one.
        """
        self.done += 1
        self.check()
        self.progress(min(self.done, self.total), self.total)

    def check(self) -> None:
        """Whether to go on.

        Raises:
            Stopped, TooSlow: not so.
        """
        refuse_stopped(self.stop)
        if monotonic() - self.began > self.limit:
            raise TooSlow(
                f"drawing: expected at most {self.limit:g} s, found more at step {self.done} of {self.total}; ask for fewer steps"
            )


def refuse_stopped(stop: threading.Event) -> None:
    """Go on unless it was stopped.

    Raises:
        Stopped: it was.
    """
    if stop.is_set():
        raise Stopped("drawing: expected to go on, found it stopped by whoever asked for it; ask again")
