"""A connection to Milvus: pymilvus, with its errors raised as ``ZooError``."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from loradex.index.errors import BadQuery, ZooError, ZooLocked, ZooUnreachable, closed_error
from loradex.index.milvus.address import LITE_FILE, TOKEN, Address, read_address

INSTALL: Final = "pip install 'loradex[milvus]'"
CONNECT_TIMEOUT: Final = 10.0  # seconds
TIMEOUT: Final = 60.0  # seconds for an answer
LONG_TIMEOUTS: Final = {  # seconds for calls that wait until all vectors are read or written
    "load_collection": 24 * 3600.0,
    "flush": 3600.0,
    "create_index": 3600.0,
    "drop_index": 3600.0,
}
UNREACHABLE: Final = (  # parts of messages of pymilvus if no server answers
    "Fail connecting",
    "Retry timeout",
    "Retry run out",
    "loading collection timeout",
    "closed channel",
    "server unavailable",
)
NO_PINGS: Final = {  # milvus-lite refuses clients that send keepalive pings
    "grpc.keepalive_time_ms": 2**31 - 1,
    "grpc.keepalive_permit_without_calls": 0,
}

# the number of connections of this process to each file of milvus-lite, which never closes a file by itself
_lite_connections: dict[str, int] = {}
_lite_lock = Lock()


class Connection:
    """A client for one zoo, shared by threads."""

    def __init__(self, folder: Path) -> None:
        """Connect to the address in a zoo's folder.

        Raises:
            ZooUnreachable: pymilvus is not installed, or no server answers.
            ZooLocked: another process has the files open.
            ZooError: the address cannot be read.
        """
        self.folder, self.address = folder, read_address(folder)
        self._client: Any = None
        self._lite_file = str((folder / LITE_FILE).absolute()) if not self.address.host else None
        try:
            import pymilvus

            if self._lite_file:
                import milvus_lite  # noqa: F401
        except ModuleNotFoundError as error:
            raise ZooUnreachable(
                f"{self}: expected {error.name} for a zoo in Milvus, found it not installed; {INSTALL}"
            ) from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each error that it raises
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
        with _lite_lock if self._lite_file else Lock():
            with self._zoo_errors(ZooLocked if self._lite_file else ZooUnreachable):
                self._client = new_client(pymilvus, self._lite_file, self.address)
            if self._lite_file:
                _lite_connections[self._lite_file] = _lite_connections.get(self._lite_file, 0) + 1

    def __str__(self) -> str:
        """The zoo's name in messages."""
        return str(self.address) if self.address.host else str(self.folder)

    @property
    def is_lite(self) -> bool:
        """Whether milvus-lite answers, in this process or another."""
        return str(self.call("get_server_version")).startswith("milvus_lite")

    def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of ``MilvusClient`` and return its result.

        Raises:
            ZooClosed: the connection was closed.
            ZooUnreachable: no server answers.
            BadQuery: the server refuses the arguments.
        """
        client = self._client
        if client is None:
            raise closed_error(self.folder)
        with self._zoo_errors(BadQuery):
            return getattr(client, method)(*arguments, timeout=LONG_TIMEOUTS.get(method, TIMEOUT), **options)

    def close(self) -> None:
        """Close the client, and the files of milvus-lite with their last connection; a second call does nothing."""
        client, self._client = self._client, None
        if client is None:
            return
        with _lite_lock:
            client.close()
            if self._lite_file:
                _lite_connections[self._lite_file] -= 1
                if not _lite_connections[self._lite_file]:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(self._lite_file)

    @contextmanager
    def _zoo_errors(self, refusal: type[ZooError]) -> Iterator[None]:
        """Raise errors of pymilvus as ``ZooUnreachable`` if no server answers, else as a ``refusal``."""
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, RpcError, ValueError, OSError) as error:
            message = " ".join(str(getattr(error, "message", error)).split())[:200]
            if refusal is ZooLocked:
                raise ZooLocked(
                    f"{self}: expected milvus-lite to open {LITE_FILE}, found that it does not ({message}); end the other process that has it"
                ) from None
            if (
                isinstance(error, RpcError | OSError)
                or refusal is ZooUnreachable
                or any(part in message for part in UNREACHABLE)
            ):
                raise ZooUnreachable(
                    f"{self}: expected Milvus to answer, found: {message}; check the address, ${TOKEN} and the server"
                ) from None
            raise refusal(
                f"{self}: expected Milvus to accept a request, found: {message}; correct the request"
            ) from None


def new_client(pymilvus: Any, lite_file: str | None, address: Address) -> Any:
    """Return a client of a file of milvus-lite, or of a server."""
    if lite_file:
        return pymilvus.MilvusClient(lite_file, timeout=CONNECT_TIMEOUT, grpc_options=NO_PINGS)
    # dedicated: else pymilvus shares connections by address and token alone, whether encrypted or not
    return pymilvus.MilvusClient(
        address.uri,
        token=os.environ.get(TOKEN, ""),
        db_name=address.database,
        timeout=CONNECT_TIMEOUT,
        dedicated=True,
    )
