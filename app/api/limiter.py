"""Some do, some wait, the rest are sent away."""

from threading import BoundedSemaphore
from types import TracebackType

from loradex.app.api.errors import Busy


class Turns:
    """A few heavy jobs at once; a few more wait, each in its thread, and those beyond are refused at once."""

    def __init__(self, at_once: int, waiting: int, patience: float) -> None:
        """Let ``at_once`` jobs run and ``waiting`` more wait for ``patience`` seconds at the most."""
        self._free, self._room, self.patience = BoundedSemaphore(at_once), BoundedSemaphore(at_once + waiting), patience

    def take(self) -> None:
        """Wait for a turn.

        Raises:
            Busy: too many wait already, or it took too long.
        """
        if not self._room.acquire(blocking=False):
            raise Busy("server: expected fewer requests at a time, found too many that wait; try again in a moment")
        if not self._free.acquire(timeout=self.patience):
            self._room.release()
            raise Busy(f"server: expected a turn within {self.patience:g} s, found it busy; try again in a moment")

    def give_back(self) -> None:
        """End a turn."""
        self._free.release()
        self._room.release()

    def __enter__(self) -> None:
        """Take a turn."""
        self.take()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.give_back()
