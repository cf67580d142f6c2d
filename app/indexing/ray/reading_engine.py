"""Reading by a Ray cluster: a Ray Data pipeline from tasks to Parquet parts. Nothing of Ray is imported before it is asked for."""

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from loradex.app.indexing.file_reader import Outcome, Reader, Task
from loradex.app.indexing.parts_folder import Parts, Purpose
from loradex.app.indexing.ray.cluster import connected, import_ray, unusable, workers_of
from loradex.retrieval.errors import EngineError

BATCH: Final = 64  # files a part
TRIES: Final = 3  # of workers at a file with which they end


class RayEngine:
    """Reads files on a Ray cluster: that of ``address`` or ``$RAY_ADDRESS``, else one of this machine's processors, which ends with the run."""

    def __init__(self, parts: Path, zoo: str, address: str | None = None) -> None:
        """Keep what is finished in the folder ``parts`` until it is in the ``zoo``.

        Raises:
            EngineError: Ray is not installed.
        """
        self.folder, self.zoo = parts, zoo
        named = address or os.environ.get("RAY_ADDRESS") or None
        self.address = None if named == "local" else named  # which would start one that others reach
        self.ray = import_ray(own=self.address is None)
        self.parts: Parts | None = None

    def outcomes(self, tasks: Iterable[Task], reader: Reader) -> Generator[Outcome, None, None]:
        """What became of each task, in the order of the tasks; what an earlier run finished is taken from its parts.

        Raises:
            EngineError: the cluster cannot be used, or the parts cannot be written.
        """
        space = reader.encoder.space
        self.parts = parts = Parts.open(self.folder, Purpose(self.zoo, space.name, space.dim, reader.signature))
        wanted = list(tasks)
        with closing(self._read([task for task in wanted if task.file not in parts], reader)) as read:
            for task in wanted:
                while (outcome := parts.get(task.file)) is None:
                    parts.add(next(read))
                yield outcome

    def finish(self) -> None:
        """Remove the parts: all outcomes are in the zoo.

        Raises:
            EngineError: the disk refuses it.
        """
        if self.parts:
            self.parts.remove()

    def _read(self, tasks: list[Task], reader: Reader) -> Generator[bytes, None, None]:
        """Parts, as the cluster finishes them."""
        from loradex.app.indexing.ray.ledger import Ledger
        from loradex.app.indexing.ray.worker import Worker

        ray = self.ray
        with connected(ray, self.address):
            try:
                kept = ray.put(reader)
                ledger = ray.remote(num_cpus=0)(Ledger).remote()
                batches = -(-len(tasks) // BATCH)
                workers, share = workers_of(ray.cluster_resources(), batches)
                listed = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=batches)
                pool = ray.data.ActorPoolStrategy(size=workers)
                parts = listed.map_batches(
                    Worker,
                    batch_size=None,
                    fn_constructor_args=(kept, ledger, TRIES),
                    compute=pool,
                    num_cpus=1,
                    num_gpus=share,
                )
                for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                    yield from batch["part"].to_pylist()
            except Exception as error:
                raise unusable(error) from None
        raise EngineError(
            "ray: expected an outcome of every file, found fewer; run it again to go on from what is finished"
        )
