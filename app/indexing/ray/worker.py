"""The Ray actor that reads files."""

from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask
from loradex.app.indexing.local_reading_engine import LocalReadingEngine
from loradex.app.indexing.part_format import encode_part


class Worker:
    """Reads batches of files in a process of its own."""

    def __init__(self, reader: "ray.ObjectRef[FileReader]", ledger: ActorHandle, max_attempts: int) -> None:
        """Load the experts once, onto a GPU if this worker has a share of one.

        Args:
            reader: the reader in Ray's object store.
            ledger: the ``AttemptLedger`` of all workers.
            max_attempts: a file during which so many workers died is refused.
        """
        loaded: FileReader = ray.get(reader)
        self.reader = loaded.to("cuda") if ray.get_gpu_ids() and torch.cuda.is_available() else loaded
        self.max_attempts, self.ledger, self.engine = max_attempts, ledger, LocalReadingEngine()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Read a batch of tasks into one part; file by file if a worker died with this batch before."""
        tasks: list[ReadTask] = list(batch["task"])
        name = f"batch {tasks[0].file.path}"
        if ray.get(self.ledger.begin.remote(name)) > 1:
            results = [self.read_counted(task) for task in tasks]
        else:
            results = list(self.engine.read_files(tasks, self.reader))
        ray.get(self.ledger.finish.remote(name))
        return {"part": [encode_part(results, self.reader.encoder.space.dim)]}

    def read_counted(self, task: ReadTask) -> ReadResult:
        """Read one file, or refuse it if too many workers died while reading it."""
        path = task.file.path
        if ray.get(self.ledger.begin.remote(path)) > self.max_attempts:
            found = f"expected to read it, found that {self.max_attempts} workers ended with it"
            advice = "is there enough memory? Index it with --engine local, or move it away"
            result = ReadResult(task.file, refusal=f"{path}: {found}; {advice}", permanent=False)
        else:
            (result,) = self.engine.read_files([task], self.reader)
        ray.get(self.ledger.finish.remote(path))
        return result
