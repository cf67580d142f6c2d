"""The reading engine that uses a Ray cluster: a Ray Data pipeline from tasks to Parquet parts.

Ray is imported only when the engine is made.
"""

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from loradex.app.indexing.file_reader import FileReader, ReadResult, ReadTask
from loradex.app.indexing.parts_folder import PartsFolder, PartsManifest
from loradex.app.indexing.ray.cluster import cluster_error, connect, import_ray, plan_workers
from loradex.retrieval.errors import EngineError

BATCH: Final = 64  # files a part
MAX_ATTEMPTS: Final = 3  # at a file during which workers die


class RayReadingEngine:
    """Reads files on a Ray cluster.

    The cluster is that of ``address`` or ``$RAY_ADDRESS``, else one of this machine's cores that ends with the run.
    """

    def __init__(self, parts: Path, zoo: str, address: str | None = None) -> None:
        """Keep finished work in the folder ``parts`` until it is in the zoo.

        Raises:
            EngineError: Ray is not installed.
        """
        self.folder, self.zoo = parts, zoo
        named = address or os.environ.get("RAY_ADDRESS") or None
        self.address = None if named == "local" else named  # with "local", Ray starts one that other machines reach
        self.ray = import_ray(starts_cluster=self.address is None)
        self.parts: PartsFolder | None = None

    def read_files(self, tasks: Iterable[ReadTask], reader: FileReader) -> Generator[ReadResult, None, None]:
        """Read files; yields the results in the order of the tasks, those of an earlier run from its parts.

        Raises:
            EngineError: the cluster cannot be used, or the parts cannot be written.
        """
        space = reader.encoder.space
        manifest = PartsManifest(self.zoo, space.name, space.dim, reader.signature)
        self.parts = parts = PartsFolder.open(self.folder, manifest)
        all_tasks = list(tasks)
        unread = [task for task in all_tasks if task.file not in parts]
        with closing(self._run_pipeline(unread, reader)) as new_parts:
            for task in all_tasks:
                while (result := parts.get(task.file)) is None:
                    parts.add(next(new_parts))
                yield result

    def finish(self) -> None:
        """Delete the parts: all results are in the zoo.

        Raises:
            EngineError: the disk refuses it.
        """
        if self.parts:
            self.parts.remove()

    def _run_pipeline(self, tasks: list[ReadTask], reader: FileReader) -> Generator[bytes, None, None]:
        """Read the tasks on the cluster; yields each part when it is finished."""
        from loradex.app.indexing.ray.ledger import AttemptLedger
        from loradex.app.indexing.ray.worker import Worker

        ray = self.ray
        with connect(ray, self.address):
            try:
                shared_reader = ray.put(reader)
                ledger = ray.remote(num_cpus=0)(AttemptLedger).remote()
                batches = -(-len(tasks) // BATCH)
                workers, gpu_share = plan_workers(ray.cluster_resources(), batches)
                dataset = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=batches)
                parts = dataset.map_batches(
                    Worker,
                    batch_size=None,
                    fn_constructor_args=(shared_reader, ledger, MAX_ATTEMPTS),
                    compute=ray.data.ActorPoolStrategy(size=workers),
                    num_cpus=1,
                    num_gpus=gpu_share,
                )
                for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                    yield from batch["part"].to_pylist()
            except Exception as error:
                raise cluster_error(error) from None
        raise EngineError(
            "ray: expected a result for every file, found fewer; run it again to go on from what is finished"
        )
