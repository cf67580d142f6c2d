"""Limits how many heavy requests run or wait at a time; further ones are refused."""

from threading import BoundedSemaphore
from types import TracebackType

from loradex.app.api.errors import Busy


class RequestLimiter:
    """A semaphore for which only a few requests may wait, each in its thread; use it as a context manager."""

    def __init__(self, running: int, waiting: int, timeout: float) -> None:
        """Let ``running`` requests run at a time, and ``waiting`` more wait for up to ``timeout`` seconds."""
        self._running, self._admitted, self.timeout = (
            BoundedSemaphore(running),
            BoundedSemaphore(running + waiting),
            timeout,
        )

    def acquire(self) -> None:
        """Wait until the request may run.

        Raises:
            Busy: too many wait already, or the wait took too long.
        """
        if not self._admitted.acquire(blocking=False):
            raise Busy("server: expected fewer requests at a time, found too many that wait; try again in a moment")
        if not self._running.acquire(timeout=self.timeout):
            self._admitted.release()
            raise Busy(f"server: expected a turn within {self.timeout:g} s, found it busy; try again in a moment")

    def release(self) -> None:
        """Let the next request run."""
        self._running.release()
        self._admitted.release()

    def __enter__(self) -> None:
        """Acquire."""
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release."""
        self.release()
