"""Reading by a Ray cluster: a Ray Data pipeline from tasks to Parquet parts. Nothing of Ray is imported before it is asked for."""

import logging
import os
import secrets
import socket
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from app.parts import Parts, Purpose
from app.reading import Outcome, Reader, Task
from retrieval.errors import EngineError

BATCH: Final = 64  # files a part
PER_GPU: Final = 8  # workers that share a GPU, each with some hundred MiB of its own there
TRIES: Final = 3  # of workers at a file with which they end
OBJECT_STORE: Final = 512 * 2**20  # bytes of a cluster of this machine
STDERR: Final = 2
REACH: Final = 10.0  # seconds to reach a cluster
# Ray reads these when it is first imported: it reports nothing to anyone, and a cluster of this machine listens to this machine alone.
QUIET: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
OWN: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}


class RayEngine:
    """Reads files on a Ray cluster: that of ``address`` or ``$RAY_ADDRESS``, else one of this machine's processors, which ends with the run."""

    def __init__(self, parts: Path, zoo: str, address: str | None = None, processors: int | None = None) -> None:
        """Keep what is finished in the folder ``parts`` until it is in the ``zoo``.

        Raises:
            EngineError: Ray is not installed.
        """
        self.folder, self.zoo, self.processors = parts, zoo, processors
        self.address = address or os.environ.get("RAY_ADDRESS") or None
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
        from app.ray_ledger import Ledger
        from app.ray_worker import Worker

        ray = self.ray
        with self.connected():
            try:
                kept = ray.put(reader)
                ledger = ray.remote(num_cpus=0)(Ledger).remote()
                batches = -(-len(tasks) // BATCH)
                workers, share = workers_of(ray.cluster_resources(), batches)
                listed = ray.data.from_items([{"task": task} for task in tasks], override_num_blocks=batches)
                pool = ray.data.ActorPoolStrategy(size=workers)
                parts = listed.map_batches(Worker, batch_size=None, fn_constructor_args=(kept, ledger, TRIES), compute=pool, num_cpus=1, num_gpus=share)
                for batch in parts.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1):
                    yield from batch["part"].to_pylist()
            except (ray.exceptions.RayError, OSError, RuntimeError) as error:
                raise unusable(error) from None
        raise EngineError("ray: expected an outcome of every file, found fewer; run it again to go on from what is finished")

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Connect to the cluster, unless this process is connected already.

        Raises:
            EngineError: the cluster cannot be reached, or none can be started.
        """
        ray = self.ray
        if ray.is_initialized():
            yield
            return
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
        if self.address is None:
            options |= {"num_cpus": self.processors or os.cpu_count(), "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        try:
            look_for(self.address)
            with muted():
                ray.init(address=self.address or "local", **options)
        except Exception as error:
            raise unusable(error, self.address) from None
        try:
            ray.data.DataContext.get_current().enable_progress_bars = False
            logging.getLogger("ray").setLevel(logging.ERROR)
            logging.getLogger("ray.data").setLevel(logging.ERROR)
            yield
        finally:
            ray.shutdown()


def workers_of(resources: Mapping[str, float], batches: int) -> tuple[int, float]:
    """How many workers a cluster has room for, and the share of a GPU that each gets: none where there are none."""
    gpus = int(resources.get("GPU", 0))
    workers = max(1, min(int(resources.get("CPU", 1)), batches, gpus * PER_GPU or batches))
    return workers, 1 / -(-workers // gpus) if gpus else 0.0


def look_for(address: str | None) -> None:
    """Look whether something listens at ``host:port``, for which Ray itself would look for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), REACH).close()


@contextmanager
def muted() -> Iterator[None]:
    """Keep Ray's libraries, which write where they like, from writing on stderr that they are set not to write."""
    sys.stderr.flush()
    kept = os.dup(STDERR)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), STDERR)
        yield
    finally:
        os.dup2(kept, STDERR)
        os.close(kept)


def import_ray(own: bool) -> Any:
    """Ray with its data library.

    Raises:
        EngineError: it is not installed.
    """
    settings = QUIET | (OWN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)} if own else {})
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        found = f"none that can be imported ({' '.join(str(error).split())[:200]})"
        raise EngineError(f"--engine ray: expected the package ray with its data library, found {found}; pip install 'loradex[ray]'") from None
    return ray


def unusable(error: Exception, address: str | None = None) -> EngineError:
    """What to say of an error of Ray."""
    where = f"the cluster at {address}" if address else "the cluster"
    found = (" ".join(str(error).split()) or type(error).__name__)[:300]
    return EngineError(f"ray: expected {where} to work, found: {found}; check --ray-address and $RAY_ADDRESS; what is finished is kept, run it again to go on")
