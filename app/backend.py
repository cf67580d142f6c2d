"""What the page, the API and the agent tools share: the zoo that is served, and the one run that fills it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.folder_scan import lies_below
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import SHIPPED_ZOO, own_zoo
from loradex.app.search.service import Loradex
from loradex.index import ZooError, open_zoo
from loradex.retrieval.errors import LoradexError, QueryError

if TYPE_CHECKING:
    from loradex.app.drawing.renderer import Studio

LONGEST_PATH: Final = 4096  # characters
LONGEST_DRAWING: Final = 300.0  # seconds
PATIENCE: Final = 30.0  # seconds that work gets to end


class State(StrEnum):
    """How a run stands."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of indexing: it is ``doing`` something, and ``done`` with so many of ``total`` files, of which ``file`` was the last."""

    state: State = State.NONE
    doing: str = "reading"
    folders: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    file: str = ""
    answer: IndexAnswer | None = None
    reason: str | None = None


class RunUnderWay(QueryError):
    """Files are indexed already, and one run at a time is enough."""


class RunStopped(Exception):
    """Someone stopped the run."""


class Desk:
    """One zoo that is served; ``roots`` are the folders below which people may index, None for any, none for nowhere; ``bases`` are to draw with."""

    def __init__(self, loradex: Loradex, roots: Sequence[Path] | None = None, bases: Sequence[str] = ()) -> None:
        """Serve a zoo; nothing is loaded yet."""
        self.bases = bases
        self.loradex, self.roots = loradex, None if roots is None else [root.resolve() for root in roots]
        self.run = Run()
        self._starting, self._stop = threading.Lock(), threading.Event()
        self._threads: dict[threading.Thread, threading.Event] = {}

    def index(self, folders: Sequence[str]) -> None:
        """Begin to add the LoRAs below some folders of this machine; the shipped zoo is left as it is, and the person's own is filled and served.

        Raises:
            QueryError: a folder may not be indexed or is none.
            RunUnderWay: a run is under way.
        """
        places = [self.place_of(folder) for folder in folders if folder.strip()]
        if not places:
            raise QueryError("folders: expected at least one, found none; name the folder that holds your LoRAs")
        with self._starting:
            if self.run.state is State.RUNNING:
                raise RunUnderWay("indexing: expected no run under way, found one; wait for it, or stop it")
            self._stop = threading.Event()
            self.run = Run(State.RUNNING, folders=[str(place) for place in places])
            self.start(lambda: self._index(places), self._stop)

    @cached_property
    def studio(self) -> "Studio":
        """Draws what models do; diffusers is loaded when it is first asked for."""
        from loradex.app.drawing.base_models import Bases
        from loradex.app.drawing.renderer import Studio

        return Studio(Bases.of(self.bases), open_file=self.loradex.encoder.router.open, limit=LONGEST_DRAWING)

    def place_of(self, folder: str) -> Path:
        """A folder that may be indexed.

        Raises:
            QueryError: it may not, or is none.
        """
        if len(folder) > LONGEST_PATH or "\0" in folder:
            raise QueryError(
                f"folder {folder[:80]!r}: expected a path of up to {LONGEST_PATH} characters, found none; check it"
            )
        place = Path(folder.strip()).expanduser()
        if self.roots is not None and not any(lies_below(str(place.resolve()), str(root)) for root in self.roots):
            allowed = ", ".join(map(str, self.roots)) or "none"
            raise QueryError(
                f"folder {folder[:200]!r}: expected one below {allowed}; ask who runs this server, or use `loradex index`"
            )
        try:
            is_folder = place.is_absolute() and place.is_dir()
        except OSError:
            is_folder = False
        if not is_folder:
            raise QueryError(
                f"folder {folder[:200]!r}: expected the full path of a folder on the server's machine, found none; check it"
            )
        return place

    def stop(self) -> None:
        """Stop the run after the files in hand; what was committed stays, and the next run goes on from there."""
        self._stop.set()

    def start(self, work: Callable[[], None], stop: threading.Event) -> None:
        """Do some work in a thread of its own, until ``stop`` is set."""
        self._threads = {thread: event for thread, event in self._threads.items() if thread.is_alive()}
        thread = threading.Thread(target=work, daemon=True)
        self._threads[thread] = stop
        thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until all work has ended, or for some seconds."""
        until = None if seconds is None else time.monotonic() + seconds
        for thread in list(self._threads):
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Stop all work, so that no thread is cut off in mid-computation."""
        for stop in self._threads.values():
            stop.set()
        self.wait(PATIENCE)

    def _index(self, places: Sequence[Path]) -> None:
        try:
            target = own_zoo() if self.loradex.zoo_folder == SHIPPED_ZOO else self.loradex.zoo_folder
            served = self.loradex if target == self.loradex.zoo_folder else Loradex(target)
            answer = index_places(places, target, served.encoder, self._progress)
            self.loradex = served
            self.run = replace(self.run, answer=answer, doing="drawing", done=0, total=0, file="")
            self._draw(target)
            self.run = replace(self.run, state=State.DONE)
        except RunStopped:
            self.run = replace(self.run, state=State.STOPPED)
        except (LoradexError, ZooError, OSError) as error:
            self.run = replace(self.run, state=State.FAILED, reason=str(error))
        except BaseException:
            self.run = replace(
                self.run,
                state=State.FAILED,
                reason="indexing: expected to finish, found an error of Loradex itself; see the server's log",
            )
            raise

    def _draw(self, zoo_folder: Path) -> None:
        """Give drawings to the models that have none and whose base model is at hand."""
        from loradex.app.drawing.previews import draw_missing, undrawn

        with open_zoo(zoo_folder) as zoo:
            models = undrawn(zoo, self.studio)
            for done, outcome in enumerate(draw_missing(zoo, self.studio, models, self._stop), 1):
                self._progress(done, len(models), outcome.model.name)

    def _progress(self, done: int, total: int, file: str) -> None:
        if self._stop.is_set():
            raise RunStopped
        self.run = replace(self.run, done=done, total=total, file=file or self.run.file)
