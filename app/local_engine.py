"""Reading by threads of this machine, which is the default."""

import os
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import torch

from app.reading import Outcome, Reader, Task

READERS: Final = min(4, os.cpu_count() or 1)  # files read at a time
REMOTE_READERS: Final = 8  # files elsewhere, which mostly wait
AHEAD: Final = 128  # files that are read before the first of them is asked for


class LocalEngine:
    """Reads files by threads."""

    def __init__(self, readers: int | None = None) -> None:
        """Read so many files of this machine at a time."""
        self.readers = readers or READERS

    def outcomes(self, tasks: Iterable[Task], reader: Reader) -> Generator[Outcome, None, None]:
        """What became of each task, in the order of the tasks.

        A layer is too small to be shared out among processors: torch keeps to one a reader, which takes half the time.
        """
        before = torch.get_num_threads()
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, before)
            here, elsewhere = (stack.enter_context(pool(count)) for count in (self.readers, REMOTE_READERS))
            waiting: deque[Future[Outcome]] = deque()
            stack.callback(lambda: [future.cancel() for future in waiting])
            for task in tasks:
                waiting.append((elsewhere if task.remote else here).submit(reader.read, task))
                if len(waiting) == AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def finish(self) -> None:
        """Nothing is kept."""


def pool(readers: int) -> ThreadPoolExecutor:
    """Threads in each of which torch keeps to one processor; they start when they are first needed."""
    return ThreadPoolExecutor(readers, "reader", torch.set_num_threads, (1,))
