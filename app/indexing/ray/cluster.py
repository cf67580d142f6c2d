"""A Ray cluster: one that runs, or one of this machine's processors for as long as it is needed."""

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

PER_GPU: Final = 8  # workers that share a GPU, each with some hundred MiB of its own there
OBJECT_STORE: Final = 512 * 2**20  # bytes of a cluster of this machine
REACH: Final = 10.0  # seconds to reach a cluster
STDERR: Final = 2
SHORT: Final = "/tmp" if os.name == "posix" else None  # noqa: S108  # paths of its sockets may have about a hundred characters
# Ray reads these when it is first imported or started: it reports nothing to anyone, and a cluster of this machine listens to this machine alone.
QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
OWN: Final = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
OPTIONS: Final = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}


@contextmanager
def connected(ray: Any, address: str | None, processors: int | None = None) -> Iterator[None]:
    """Connect to the cluster at an address, or start one of some processors, unless this process is connected already.

    Raises:
        EngineError: the cluster cannot be reached, or none can be started.
    """
    if ray.is_initialized():
        yield
        return
    with ExitStack() as stack:
        options: dict[str, Any] = dict(OPTIONS)
        try:
            look_for(address)
            if address is None:
                folder = stack.enter_context(
                    tempfile.TemporaryDirectory(prefix="loradex-", dir=SHORT, ignore_cleanup_errors=True)
                )
                options |= {
                    "num_cpus": processors or os.cpu_count(),
                    "include_dashboard": False,
                    "object_store_memory": OBJECT_STORE,
                    "_temp_dir": folder,
                }
            stack.callback(ray.shutdown)
            with muted():
                ray.init(address=address or "local", **options)
        except Exception as error:
            raise unusable(error, address) from None
        ray.data.DataContext.get_current().enable_progress_bars = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.ERROR)
        yield


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
        raise EngineError(
            f"--engine ray: expected the package ray with its data library, found {found}; pip install 'loradex[ray]'"
        ) from None
    return ray


def unusable(error: Exception, address: str | None = None) -> EngineError:
    """What to say of an error of Ray."""
    where = f"the cluster at {address}" if address else "the cluster"
    found = (" ".join(str(error).split()) or type(error).__name__)[:300]
    return EngineError(
        f"ray: expected {where} to work, found: {found}; check --ray-address and $RAY_ADDRESS; what is finished is kept, run it again to go on"
    )
