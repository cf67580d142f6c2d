"""``loradex index --watch``: index again whenever files change."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, watch

from loradex.app.indexing.answer import IndexAnswer
from loradex.app.pictures import is_picture_name
from loradex.index import ZooLocked
from loradex.retrieval.errors import FileMissing
from loradex.retrieval.lora.weights_folder import WEIGHTS_SUFFIX
from loradex.retrieval.remote import is_remote

QUIET_MS: Final = 1000  # milliseconds without a change, after which the changed files are read
MAX_WAIT_MS: Final = 10_000  # milliseconds after which they are read though files still change
RESCAN_MS: Final = 60_000  # milliseconds after which folders are scanned without a notice: network drives send none
MAX_TRIES: Final = 30  # if another process writes to the zoo; one second apart


def index_on_changes(
    folders: Sequence[Path], index: Callable[[], IndexAnswer], stop: threading.Event | None = None
) -> Iterator[IndexAnswer]:
    """Call ``index`` after files below the folders changed, until ``stop`` is set; yields its answers.

    Raises:
        KeyboardInterrupt: the process was interrupted.
        ZooLocked: another process has written to the zoo through all tries.
    """
    stop = stop or threading.Event()

    def matters(change: Change, path: str) -> bool:
        return WEIGHTS_SUFFIX in path.lower() or is_picture_name(Path(path).name)

    options = {
        "debounce": MAX_WAIT_MS,
        "step": QUIET_MS,
        "rust_timeout": RESCAN_MS,
        "yield_on_timeout": True,
        "ignore_permission_denied": True,
    }
    for changes in watch(*folders, watch_filter=matters, stop_event=stop, **options):  # type: ignore[arg-type]
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                answer = index()
                if changes or answer.read_count or answer.removed:
                    yield answer
                break
            except FileMissing:  # the last file was removed, or a folder is being replaced
                break
            except ZooLocked:
                if not tries_left or stop.wait(1):
                    raise


def local_places(places: Sequence[str]) -> list[Path]:
    """The files and folders of this machine among the places; remote ones cannot be watched."""
    return [Path(place) for place in places if not is_remote(place)]
