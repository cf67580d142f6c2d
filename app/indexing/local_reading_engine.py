"""Reading by threads of this machine, which is the default."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import torch

from loradex.app.indexing.file_reader import Outcome, Reader, Task

READERS: Final = 1  # files of this machine read at a time, beside the writer; on two cores, two take 1.5 times as long as one: they wait for Python's lock
REMOTE_READERS: Final = 8  # files elsewhere, which mostly wait
AHEAD: Final = 128  # files that are read before the first of them is asked for


class LocalEngine:
    """Reads files by threads."""

    def outcomes(self, tasks: Iterable[Task], reader: Reader) -> Generator[Outcome, None, None]:
        """What became of each task, in the order of the tasks.

        A layer is too small to be shared out among processors: torch keeps to one a reader, which takes half the time, and a hundredth where others
        use the processors too.
        """
        before = torch.get_num_threads()
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, before)
            here, elsewhere = (stack.enter_context(pool(count)) for count in (READERS, REMOTE_READERS))
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
