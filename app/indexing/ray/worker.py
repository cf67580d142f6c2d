"""What reads files in the processes of a Ray cluster."""

from typing import Any

import ray
import torch
from ray.actor import ActorHandle

from loradex.app.indexing.file_reader import Outcome, Reader, Task
from loradex.app.indexing.local_reading_engine import LocalEngine
from loradex.app.indexing.part_format import part_of


class Worker:
    """Reads batches of tasks in a process of its own."""

    def __init__(self, reader: "ray.ObjectRef[Reader]", ledger: ActorHandle, tries: int) -> None:
        """Load the experts, once, into a GPU if there is a share of one; a file with which so many workers ended is refused."""
        loaded: Reader = ray.get(reader)
        self.reader = loaded.on("cuda") if ray.get_gpu_ids() and torch.cuda.is_available() else loaded
        self.tries, self.ledger, self.engine = tries, ledger, LocalEngine()

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Read some tasks; a part comes back. Where an earlier worker ended with this batch, one by one."""
        tasks: list[Task] = list(batch["task"])
        name = f"batch {tasks[0].file.path}"
        alone = ray.get(self.ledger.begin.remote(name)) > 1
        outcomes = (
            [self.read_carefully(task) for task in tasks] if alone else list(self.engine.outcomes(tasks, self.reader))
        )
        ray.get(self.ledger.end.remote(name))
        return {"part": [part_of(outcomes, self.reader.encoder.space.dim)]}

    def read_carefully(self, task: Task) -> Outcome:
        """Read a task unless workers ended with it again and again."""
        path = task.file.path
        if ray.get(self.ledger.begin.remote(path)) > self.tries:
            found = f"expected to read it, found that {self.tries} workers ended with it; is there enough memory? Index it with --engine local, or move it away"
            outcome = Outcome(task.file, refusal=f"{path}: {found}", noted=False)
        else:
            (outcome,) = self.engine.outcomes([task], self.reader)
        ray.get(self.ledger.end.remote(path))
        return outcome
