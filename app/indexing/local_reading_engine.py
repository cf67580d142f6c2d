"""The default reading engine: threads of this machine."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

import torch

from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask

# One thread beside the one that writes to the zoo: on two cores, two take 1.5 times as long, as they wait for the GIL.
LOCAL_THREADS: Final = 1
REMOTE_THREADS: Final = 8  # these mostly wait for the network
MAX_PENDING: Final = 128  # files submitted before the result of the first is taken


class LocalReadingEngine:
    """Reads files in threads."""

    def read_files(self, tasks: Iterable[ReadTask], reader: FileReader) -> Generator[ReadResult, None, None]:
        """Read files; yields the results in the order of the tasks.

        Each thread uses one core: a layer is too small to be split, so more cores double the time, and multiply it by a
        hundred if other processes use them too.
        """
        torch_threads = torch.get_num_threads()
        with ExitStack() as stack:
            stack.callback(torch.set_num_threads, torch_threads)
            local, remote = (stack.enter_context(thread_pool(count)) for count in (LOCAL_THREADS, REMOTE_THREADS))
            pending: deque[Future[ReadResult]] = deque()
            stack.callback(lambda: [future.cancel() for future in pending])
            for task in tasks:
                pending.append((remote if task.remote else local).submit(reader.read, task))
                if len(pending) == MAX_PENDING:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def finish(self) -> None:
        """Nothing to remove: a stopped run continues from the zoo."""


def thread_pool(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads let torch use one core each; they start when first needed."""
    return ThreadPoolExecutor(threads, "reader", torch.set_num_threads, (1,))
