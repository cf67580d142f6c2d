"""What the page, the API and the agent tools share: the zoo that is served, and the one run that fills it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from app.answers import IndexAnswer
from app.folders import lies_below
from app.ingest import index_places
from app.places import SHIPPED_ZOO, own_zoo
from app.service import Loradex
from index.errors import ZooError
from retrieval.errors import LoradexError, QueryError

LONGEST_PATH: Final = 4096  # characters


class State(StrEnum):
    """How a run stands."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of indexing: ``done`` of ``total`` files, of which ``file`` was the last."""

    state: State = State.NONE
    folders: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    file: str = ""
    answer: IndexAnswer | None = None
    reason: str | None = None


class RunUnderWay(QueryError):
    """Files are indexed already, and one run at a time is enough."""


class Stopped(Exception):
    """Someone stopped the run."""


class Desk:
    """One zoo that is served; ``roots`` are the folders below which people may index, None for any, none for nowhere."""

    def __init__(self, loradex: Loradex, roots: Sequence[Path] | None = None) -> None:
        """Serve a zoo."""
        self.loradex, self.roots = loradex, None if roots is None else [root.resolve() for root in roots]
        self.run = Run()
        self._starting, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None

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
            self._stop.clear()
            self.run = Run(State.RUNNING, [str(place) for place in places])
            self._thread = threading.Thread(target=self._index, args=(places,), name="indexing", daemon=True)
            self._thread.start()

    def place_of(self, folder: str) -> Path:
        """A folder that may be indexed.

        Raises:
            QueryError: it may not, or is none.
        """
        if len(folder) > LONGEST_PATH or "\0" in folder:
            raise QueryError(f"folder {folder[:80]!r}: expected a path of up to {LONGEST_PATH} characters, found none; check it")
        place = Path(folder.strip()).expanduser()
        if self.roots is not None and not any(lies_below(str(place.resolve()), str(root)) for root in self.roots):
            allowed = ", ".join(map(str, self.roots)) or "none"
            raise QueryError(f"folder {folder[:200]!r}: expected one below {allowed}; ask who runs this server, or use `loradex index`")
        try:
            is_folder = place.is_absolute() and place.is_dir()
        except OSError:
            is_folder = False
        if not is_folder:
            raise QueryError(f"folder {folder[:200]!r}: expected the full path of a folder on the server's machine, found none; check it")
        return place

    def stop(self) -> None:
        """Stop the run after the files in hand; what was committed stays, and the next run goes on from there."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the run has ended, or for some seconds."""
        if self._thread:
            self._thread.join(seconds)

    def _index(self, places: Sequence[Path]) -> None:
        try:
            target = own_zoo() if self.loradex.zoo_folder == SHIPPED_ZOO else self.loradex.zoo_folder
            served = self.loradex if target == self.loradex.zoo_folder else Loradex(target)
            answer = index_places(places, target, served.encoder, self._progress)
            self.loradex = served
            self.run = replace(self.run, state=State.DONE, answer=answer)
        except Stopped:
            self.run = replace(self.run, state=State.STOPPED)
        except (LoradexError, ZooError, OSError) as error:
            self.run = replace(self.run, state=State.FAILED, reason=str(error))
        except BaseException:
            self.run = replace(self.run, state=State.FAILED, reason="indexing: expected to finish, found an error of Loradex itself; see the server's log")
            raise

    def _progress(self, done: int, total: int, file: str) -> None:
        if self._stop.is_set():
            raise Stopped
        self.run = replace(self.run, done=done, total=total, file=file or self.run.file)
