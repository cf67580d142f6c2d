"""Keeping a zoo current while folders change."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, watch

from app.answers import IndexAnswer
from app.folders import ENDING
from app.ingest import HUB
from index import ZooLocked
from retrieval.errors import FileMissing

QUIET: Final = 1000  # milliseconds without a change, after which the changed files are read
LONGEST: Final = 10_000  # milliseconds that changes are gathered for at the most
TRIES: Final = 30  # at a zoo that another process writes to, a second apart


def index_again(folders: Sequence[Path], index: Callable[[], IndexAnswer], stop: threading.Event | None = None) -> Iterator[IndexAnswer]:
    """What became of the files each time that some below the folders changed, until ``stop`` is set or the process is interrupted.

    Raises:
        ZooLocked: another process wrote to the zoo for long.
    """
    stop = stop or threading.Event()

    def concerns(change: Change, path: str) -> bool:
        return ENDING in path.lower() or Path(path).suffix.lower() in (".json", ".info")

    for _ in watch(*folders, watch_filter=concerns, debounce=LONGEST, step=QUIET, stop_event=stop, raise_interrupt=False, ignore_permission_denied=True):
        for left in reversed(range(TRIES)):
            try:
                yield index()
                break
            except FileMissing:  # the last file went, or a folder is about to be replaced
                break
            except ZooLocked:
                if not left or stop.wait(1):
                    raise


def local(places: Sequence[str]) -> list[Path]:
    """The places that are folders or files of this machine."""
    return [Path(place) for place in places if not place.startswith(HUB)]
