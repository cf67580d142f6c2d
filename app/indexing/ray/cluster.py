"""Connects to a Ray cluster, or starts one on this machine for the time of a run."""

import logging
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from loradex.retrieval.errors import EngineError

WORKERS_PER_GPU: Final = 8  # each needs some hundred MiB of its memory
OBJECT_STORE_BYTES: Final = 512 * 2**20  # of a cluster on this machine
CONNECT_TIMEOUT: Final = 10.0  # seconds
STDERR: Final = 2
TEMP_PARENT: Final = "/tmp" if os.name == "posix" else None  # noqa: S108  # short: paths of Ray's sockets have a limit
# Ray reads these variables when it is first imported or started: it sends no usage data, and a cluster on this machine
# accepts connections from this machine only.
PRIVATE_SETTINGS: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
NEW_CLUSTER_SETTINGS: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
INIT_OPTIONS: Final = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


@contextmanager
def connect(ray: Any, address: str | None, processors: int | None = None) -> Iterator[None]:
    """Connect to the cluster at ``address``, or start one of ``processors`` cores; does nothing if already connected.

    Raises:
        EngineError: the cluster cannot be reached, or none can be started.
    """
    if ray.is_initialized():
        yield
        return
    with ExitStack() as stack:
        options: dict[str, Any] = dict(INIT_OPTIONS)
        try:
            check_reachable(address)
            if address is None:
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="loradex-", dir=TEMP_PARENT, ignore_cleanup_errors=True)
                )
                options |= {
                    "num_cpus": processors or os.cpu_count(),
                    "include_dashboard": False,
                    "object_store_memory": OBJECT_STORE_BYTES,
                    "_temp_dir": folder,
                }
            stack.callback(ray.shutdown)
            with mute_stderr():
                ray.init(address=address or "local", **options)
        except Exception as error:
            raise cluster_error(error, address) from None
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield


def plan_workers(resources: Mapping[str, float], batches: int) -> tuple[int, float]:
    """The number of workers to start on a cluster, and the share of a GPU for each; 0 without GPUs."""
    gpus = int(resources.get("GPU", 0))
    workers = max(1, min(int(resources.get("CPU", 1)), batches, gpus * WORKERS_PER_GPU or batches))
    return workers, 1 / -(-workers // gpus) if gpus else 0.0


def check_reachable(address: str | None) -> None:
    """Check that something listens at ``host:port``; Ray itself would try for minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = (address or "").rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT).close()


@contextmanager
def mute_stderr() -> Iterator[None]:
    """Discard stderr: Ray's native libraries write to it whatever their log level."""
    sys.stderr.flush()
    saved = os.dup(STDERR)
    try:
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), STDERR)
        yield
    finally:
        os.dup2(saved, STDERR)
        os.close(saved)


def import_ray(starts_cluster: bool) -> Any:
    """Import Ray with its data library, with settings for a cluster of ours if the run is to start one.

    Raises:
        EngineError: Ray is not installed.
    """
    settings = PRIVATE_SETTINGS
    if starts_cluster:
        settings = settings | NEW_CLUSTER_SETTINGS | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        found = f"none that can be imported ({' '.join(str(error).split())[:200]})"
        raise EngineError(
            f"--engine ray: expected the package ray with its data library, found {found}; pip install 'loradex[ray]'"
        ) from None
    return ray


def cluster_error(error: Exception, address: str | None = None) -> EngineError:
    """Turn an error of Ray into one of Loradex."""
    where = f"the cluster at {address}" if address else "the cluster"
    found = (" ".join(str(error).split()) or type(error).__name__)[:300]
    return EngineError(
        f"ray: expected {where} to work, found: {found}; check --ray-address and $RAY_ADDRESS; what is finished is kept, run it again to go on"
    )
