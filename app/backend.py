"""State of a running server, shared by page, API and agent tools: the zoo that it serves and the one indexing run."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loradex.app.bases import Bases
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.folder_scan import is_below
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import SHIPPED_ZOO, user_zoo
from loradex.app.search.service import Loradex
from loradex.app.search.waiting import Waiting, WaitingModels
from loradex.app.words import FileWords, WordsService
from loradex.index import ZooError, open_zoo
from loradex.retrieval.errors import LoradexError, QueryError

if TYPE_CHECKING:
    from loradex.app.drawing.renderer import Renderer

MAX_PATH_LENGTH: Final = 4096  # characters
DRAWING_TIMEOUT: Final = 300.0  # seconds
MAX_WORDS_RUNS: Final = 16  # at a time, most of which wait while one prepares a base model
SHUTDOWN_TIMEOUT: Final = 30.0  # seconds to wait for background threads


class State(StrEnum):
    """State of an indexing run."""

    NONE = "none"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class IndexingRun:
    """Progress of an indexing run.

    Attributes:
        doing: the phase: "reading" files, then "drawing" models that have no preview.
        done, total: files (or models) processed so far in this phase, and in all.
        file: the last one processed.
        answer: the result, once all files are read.
        reason: why the run failed.
    """

    state: State = State.NONE
    doing: str = "reading"
    folders: list[str] = field(default_factory=list)
    done: int = 0
    total: int = 0
    file: str = ""
    answer: IndexAnswer | None = None
    reason: str | None = None


class RunUnderWay(QueryError):
    """An indexing run is already in progress; only one is allowed at a time."""


class RunStopped(Exception):
    """A run was stopped: by a user, or as the server ends."""


class TooManyRuns(LoradexError):
    """Words of too many sets of files are being read."""


class WordsRun:
    """Words of some files, read one file after another in the background.

    Attributes:
        files: their paths.
        results: of the files that were read so far, in order.
        error: why the run ended before all were read, if it did.
        stop: to be set to end the run after the current file.
        ended: set once no more results will come.
    """

    def __init__(self, files: Sequence[str]) -> None:
        """Nothing is read yet."""
        self.files, self.results = files, list[FileWords]()
        self.error: LoradexError | None = None
        self.stop, self.ended = threading.Event(), threading.Event()


class Backend:
    """A served zoo, its indexing run and its background threads.

    Attributes:
        loradex: searches the zoo; replaced when an indexing run has filled another zoo.
        roots: folders below which indexing is allowed; None allows any folder, an empty list none.
        bases: base models to draw and to read words with, as FAMILY=PATH.
        indexing_run: the current or last indexing run.
        preparing: while a base model is prepared for reading words, the texts that were encoded, and those in all.
    """

    def __init__(self, loradex: Loradex, roots: Sequence[Path] | None = None, bases: Sequence[str] = ()) -> None:
        """Serve a zoo; nothing is loaded yet."""
        self.bases = bases
        self.loradex, self.roots = loradex, None if roots is None else [root.resolve() for root in roots]
        self.indexing_run = IndexingRun()
        self._start_lock, self._stop = threading.Lock(), threading.Event()
        self._threads: dict[threading.Thread, threading.Event] = {}
        self.preparing: tuple[int, int] | None = None
        self._waiting = WaitingModels()
        self._words: WordsService | None = None
        self._words_runs: list[WordsRun] = []
        self._words_lock, self._closing = threading.Lock(), threading.Event()

    def start_indexing(self, folders: Sequence[str]) -> None:
        """Start to index folders of this machine in the background.

        The LoRAs go into the served zoo. If that is the shipped zoo, which is never written, they go into the user's
        own zoo, which is served as soon as it is filled.

        Raises:
            QueryError: a folder does not exist or may not be indexed.
            RunUnderWay: a run is already in progress.
        """
        paths = [self.check_folder(folder) for folder in folders if folder.strip()]
        if not paths:
            raise QueryError("folders: expected at least one, found none; name the folder that holds your LoRAs")
        with self._start_lock:
            if self.indexing_run.state is State.RUNNING:
                raise RunUnderWay("indexing: expected no run in progress, found one; wait for it, or stop it")
            self._stop = threading.Event()
            self.indexing_run = IndexingRun(State.RUNNING, folders=[str(path) for path in paths])
            self.run_in_background(lambda: self._index(paths), self._stop)

    def read_words(self, files: Sequence[str], k: int, candidates: Sequence[str] = ()) -> WordsRun:
        """Start to read the words that files were trained with, in the background.

        The first file of a family takes seconds to minutes more, in which its base model is prepared.

        Args:
            files: paths of LoRA files.
            k: the number of words of each.
            candidates: the words to choose from; none for the usual ones.

        Raises:
            TooManyRuns: too many runs are in progress.
        """
        with self._words_lock:
            self._words_runs = [run for run in self._words_runs if not run.ended.is_set()]
            if len(self._words_runs) >= MAX_WORDS_RUNS:
                raise TooManyRuns(
                    f"words: expected fewer than {MAX_WORDS_RUNS} sets of files that are being read, found so many; try again in a minute"
                )
            run = WordsRun(files)
            self._words_runs.append(run)
            self.run_in_background(lambda: self._read_words(run, k, candidates), run.stop)
        return run

    def waiting(self) -> list[Waiting]:
        """The families of the served zoo with models that no expert has read, the most models first.

        Raises:
            ZooError: the zoo cannot be read.
        """
        return self._waiting.of(self.loradex.zoo)

    @cached_property
    def renderer(self) -> "Renderer":
        """Draws models. Created on first use, as it imports diffusers."""
        from loradex.app.drawing.base_models import BaseModels
        from loradex.app.drawing.renderer import Renderer

        return Renderer(
            BaseModels.from_pairs(self.bases), open_file=self.loradex.encoder.router.open, timeout=DRAWING_TIMEOUT
        )

    def check_folder(self, folder: str) -> Path:
        """Return the path of a folder that may be indexed.

        Raises:
            QueryError: it does not exist, or may not be indexed.
        """
        if len(folder) > MAX_PATH_LENGTH or "\0" in folder:
            raise QueryError(
                f"folder {folder[:80]!r}: expected a path of up to {MAX_PATH_LENGTH} characters, found none; check it"
            )
        path = Path(folder.strip()).expanduser()
        if self.roots is not None and not any(is_below(str(path.resolve()), str(root)) for root in self.roots):
            allowed = ", ".join(map(str, self.roots)) or "none"
            raise QueryError(
                f"folder {folder[:200]!r}: expected one below {allowed}; ask who runs this server, or use `loradex index`"
            )
        try:
            is_folder = path.is_absolute() and path.is_dir()
        except OSError:
            is_folder = False
        if not is_folder:
            raise QueryError(
                f"folder {folder[:200]!r}: expected the full path of a folder on the server's machine, found none; check it"
            )
        return path

    def stop_indexing(self) -> None:
        """Stop the run after the current files; what was committed stays, and the next run continues from there."""
        self._stop.set()

    def run_in_background(self, work: Callable[[], None], stop: threading.Event) -> None:
        """Call ``work`` in a new thread; ``close`` sets ``stop`` and waits for the thread."""
        self._threads = {thread: event for thread, event in self._threads.items() if thread.is_alive()}
        thread = threading.Thread(target=work, daemon=True)
        self._threads[thread] = stop
        thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until all background threads have ended, or at most some seconds."""
        deadline = None if seconds is None else time.monotonic() + seconds
        for thread in list(self._threads):
            thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def close(self) -> None:
        """Stop all background threads and wait for them, so that none is killed in the middle of a computation."""
        self._closing.set()
        for stop in self._threads.values():
            stop.set()
        self.wait(SHUTDOWN_TIMEOUT)

    def _index(self, paths: Sequence[Path]) -> None:
        try:
            zoo_folder = user_zoo() if self.loradex.zoo_folder == SHIPPED_ZOO else self.loradex.zoo_folder
            loradex = self.loradex if zoo_folder == self.loradex.zoo_folder else Loradex(zoo_folder)
            answer = index_places(
                paths, zoo_folder, loradex.encoder, self._report_progress, words=self._words_service()
            )
            self.loradex = loradex
            self.indexing_run = replace(self.indexing_run, answer=answer, doing="drawing", done=0, total=0, file="")
            self._draw_previews(zoo_folder)
            self.indexing_run = replace(self.indexing_run, state=State.DONE)
        except RunStopped:
            self.indexing_run = replace(self.indexing_run, state=State.STOPPED)
        except (LoradexError, ZooError, OSError) as error:
            self.indexing_run = replace(self.indexing_run, state=State.FAILED, reason=str(error))
        except BaseException:
            self.indexing_run = replace(
                self.indexing_run,
                state=State.FAILED,
                reason="indexing: expected to finish, found an error of Loradex itself; see the server's log",
            )
            raise

    def _read_words(self, run: WordsRun, k: int, candidates: Sequence[str]) -> None:
        try:
            for file in run.files:
                if run.stop.is_set():
                    break
                run.results.append(self._words_service().read_path(Path(file), k, candidates))
        except LoradexError as error:
            run.error = error
        except RunStopped:
            pass
        except BaseException:
            run.error = LoradexError(
                "words: expected to read them, found an error of Loradex itself; see the server's log"
            )
            raise
        finally:
            self.preparing = None  # another run that prepares one reports it again
            run.ended.set()

    def _words_service(self) -> WordsService:
        with self._words_lock:
            if self._words is None:
                self._words = WordsService(Bases.load(self.bases), self._report_preparing)
            return self._words

    def _report_preparing(self, done: int, total: int) -> None:
        if self._closing.is_set():
            raise RunStopped
        self.preparing = (done, total) if done < total else None

    def _draw_previews(self, zoo_folder: Path) -> None:
        """Draw the models that have no preview and whose base model is available."""
        from loradex.app.drawing.previews import draw_previews, models_without_preview

        with open_zoo(zoo_folder) as zoo:
            models = models_without_preview(zoo, self.renderer)
            for done, result in enumerate(draw_previews(zoo, self.renderer, models, self._stop), 1):
                self._report_progress(done, len(models), result.model.name)

    def _report_progress(self, done: int, total: int, file: str) -> None:
        if self._stop.is_set():
            raise RunStopped
        self.indexing_run = replace(self.indexing_run, done=done, total=total, file=file or self.indexing_run.file)
