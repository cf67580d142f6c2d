"""Keeping a zoo current while folders change."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, watch

from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.folder_scan import ENDING
from loradex.index import ZooLocked
from loradex.retrieval.errors import FileMissing
from loradex.retrieval.remote import is_remote

QUIET: Final = 1000  # milliseconds without a change, after which the changed files are read
LONGEST: Final = 10_000  # milliseconds that changes are gathered for at the most
RESCAN: Final = 60_000  # milliseconds after which the folders are looked through though nothing was told, as network drives tell nothing
TRIES: Final = 30  # at a zoo that another process writes to, a second apart


def index_again(
    folders: Sequence[Path], index: Callable[[], IndexAnswer], stop: threading.Event | None = None
) -> Iterator[IndexAnswer]:
    """What became of the files each time that some below the folders changed, until ``stop`` is set.

    Raises:
        KeyboardInterrupt: the process was interrupted.
        ZooLocked: another process wrote to the zoo for long.
    """
    stop = stop or threading.Event()

    def concerns(change: Change, path: str) -> bool:
        return ENDING in path.lower()

    options = {
        "debounce": LONGEST,
        "step": QUIET,
        "rust_timeout": RESCAN,
        "yield_on_timeout": True,
        "ignore_permission_denied": True,
    }
    for changes in watch(*folders, watch_filter=concerns, stop_event=stop, **options):  # type: ignore[arg-type]
        for left in reversed(range(TRIES)):
            try:
                answer = index()
                if changes or answer.by_weights or answer.by_metadata or answer.removed:
                    yield answer
                break
            except FileMissing:  # the last file went, or a folder is about to be replaced
                break
            except ZooLocked:
                if not left or stop.wait(1):
                    raise


def local(places: Sequence[str]) -> list[Path]:
    """The places that are folders or files of this machine."""
    return [Path(place) for place in places if not is_remote(place)]
