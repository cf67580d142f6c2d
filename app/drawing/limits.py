"""Limits on drawing: one at a time in a process, a short queue, and a timeout."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from loradex.app.drawing.errors import Busy, Stopped, TooSlow

MAX_WAITING: Final = 8
POLL_INTERVAL: Final = 0.1  # seconds between two checks of whether a waiting caller was stopped

StepProgress = Callable[[int, int], None]  # called with: steps done, steps in all


class DrawingQueue:
    """A lock for which only a few callers may wait."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        """Let up to ``max_waiting`` callers wait."""
        self.max_waiting = max_waiting
        self._lock, self._places = threading.Lock(), threading.Semaphore(max_waiting + 1)

    @contextmanager
    def turn(self, stop: threading.Event) -> Iterator[None]:
        """Wait for the lock, and hold it within the context.

        Raises:
            Busy: too many callers wait already.
            Stopped: ``stop`` was set while waiting.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"drawing: expected at most {self.max_waiting} to wait, found that many; try again in a while")
        try:
            while not self._lock.acquire(timeout=POLL_INTERVAL):
                raise_if_stopped(stop)
            try:
                yield
            finally:
                self._lock.release()
        finally:
            self._places.release()


class StepTracker:
    """Counts the steps of a drawing, and ends it when it is stopped or takes too long."""

    def __init__(self, total: int, timeout: float, stop: threading.Event, progress: StepProgress) -> None:
        """Start the clock for ``total`` steps within ``timeout`` seconds."""
        self.total, self.timeout, self.stop, self.progress = total, timeout, stop, progress
        self.done, self.started = 0, monotonic()

    def step(self) -> None:
        """Count a step, and report progress.

        Raises:
            Stopped, TooSlow: as ``check``.
        """
        self.done += 1
        self.check()
        self.progress(min(self.done, self.total), self.total)

    def check(self) -> None:
        """Check that the drawing may go on.

        Raises:
            Stopped: it was stopped.
            TooSlow: it took longer than the timeout.
        """
        raise_if_stopped(self.stop)
        if monotonic() - self.started > self.timeout:
            raise TooSlow(
                f"drawing: expected at most {self.timeout:g} s, found more at step {self.done} of {self.total}; ask for fewer steps"
            )


def raise_if_stopped(stop: threading.Event) -> None:
    """Raise Stopped if ``stop`` is set."""
    if stop.is_set():
        raise Stopped("drawing: expected to finish, found it stopped by the user; start it again")
