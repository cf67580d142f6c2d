"""The client of one zoo: pymilvus, with errors of our own tree."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, Final

from loradex.index.errors import BadQuery, ZooError, ZooLocked, ZooUnreachable
from loradex.index.milvus.address import FILES, TOKEN, Address, address_of
from loradex.index.sqlite.connections import closed_zoo

INSTALL: Final = "pip install 'loradex[milvus]'"
PATIENCE: Final = 60.0  # seconds for an answer
LONG_WORK: Final = {
    "load_collection": 24 * 3600.0,
    "flush": 3600.0,
    "create_index": 3600.0,
    "drop_index": 3600.0,
}  # seconds, as these wait for all vectors
UNREACHED: Final = (
    "Fail connecting",
    "Retry timeout",
    "Retry run out",
    "loading collection timeout",
    "closed channel",
    "server unavailable",
)
TO_CONNECT: Final = 10.0
NO_PINGS: Final = {
    "grpc.keepalive_time_ms": 2**31 - 1,
    "grpc.keepalive_permit_without_calls": 0,
}  # which milvus-lite takes for an attack
_sharing, _sharers = (
    Lock(),
    dict[str, int](),
)  # how many zoos of this process use the files of a folder; milvus-lite itself never closes them


class Connection:
    """A client that threads share."""

    def __init__(self, folder: Path) -> None:
        """Connect to where a marked folder's zoo lies.

        Raises:
            ZooUnreachable: pymilvus is not installed, or no server answers.
            ZooLocked: another process has the files open.
            ZooError: the folder's mark cannot be read.
        """
        self.folder, self.address = folder, address_of(folder)
        self._client: Any = None
        self._files = str((folder / FILES).absolute()) if not self.address.host else None
        try:
            import pymilvus

            if self._files:
                import milvus_lite  # noqa: F401
        except ModuleNotFoundError as error:
            raise ZooUnreachable(
                f"{self}: expected {error.name} for a zoo in Milvus, found none installed; {INSTALL}"
            ) from None
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it logs each error that it raises
        logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)
        with _sharing if self._files else Lock():
            with self._typed(ZooLocked if self._files else ZooUnreachable):
                self._client = client_of(pymilvus, self._files, self.address)
            if self._files:
                _sharers[self._files] = _sharers.get(self._files, 0) + 1

    def __str__(self) -> str:
        """As messages name the zoo."""
        return str(self.address) if self.address.host else str(self.folder)

    @property
    def is_lite(self) -> bool:
        """Whether milvus-lite answers, in this process or another."""
        return str(self.ask("get_server_version")).startswith("milvus_lite")

    def ask(self, what: str, *arguments: Any, **options: Any) -> Any:
        """The answer of a method of ``MilvusClient``.

        Raises:
            ZooClosed: the connection was closed.
            ZooUnreachable: no server answers.
            BadQuery: it does not take what it is asked.
        """
        client = self._client
        if client is None:
            raise closed_zoo(self.folder)
        with self._typed(BadQuery):
            return getattr(client, what)(*arguments, timeout=LONG_WORK.get(what, PATIENCE), **options)

    def close(self) -> None:
        """Let go of the client, and of the files when no other zoo of this process uses them; a second call does nothing."""
        client, self._client = self._client, None
        if client is None:
            return
        with _sharing:
            client.close()
            if self._files:
                _sharers[self._files] -= 1
                if not _sharers[self._files]:
                    from milvus_lite.server_manager import server_manager_instance

                    server_manager_instance.release_server(self._files)

    @contextmanager
    def _typed(self, kind: type[ZooError]) -> Iterator[None]:
        """Turn errors of pymilvus into ours: of a ``kind`` where a server, if there is one, did answer."""
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, RpcError, ValueError, OSError) as error:
            said = " ".join(str(getattr(error, "message", error)).split())[:200]
            if kind is ZooLocked:
                raise ZooLocked(
                    f"{self}: expected milvus-lite to open {FILES}, found that it does not ({said}); end the other process that has it"
                ) from None
            if (
                isinstance(error, RpcError | OSError)
                or kind is ZooUnreachable
                or any(sign in said for sign in UNREACHED)
            ):
                raise ZooUnreachable(
                    f"{self}: expected Milvus to answer, found: {said}; check the address, ${TOKEN} and the server"
                ) from None
            raise kind(f"{self}: expected Milvus to take a request, found: {said}; mend the request") from None


def client_of(pymilvus: Any, files: str | None, address: Address) -> Any:
    """A client of some files, or of a server."""
    if files:
        return pymilvus.MilvusClient(files, timeout=TO_CONNECT, grpc_options=NO_PINGS)
    # a connection of its own: pymilvus shares one by address and token alone, whether it is encrypted or not
    return pymilvus.MilvusClient(
        address.uri, token=os.environ.get(TOKEN, ""), db_name=address.database, timeout=TO_CONNECT, dedicated=True
    )
