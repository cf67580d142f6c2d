"""A place that is not on this machine, by its address -> its LoRAs, whatever serves it."""

import re
from collections.abc import Sequence
from typing import Any, Final, Protocol, Self, TypeVar

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.remote.fsspec_folder import StoreFolder
from loradex.retrieval.remote.hub_repository import HubRepository
from loradex.retrieval.remote.model import HubModel

ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.ASCII)
HUB: Final = "hf://"


class RemoteFile(Protocol):
    """A file as its place lists it.

    Attributes:
        name: its path in the folder.
        size: in bytes.
        path: its whole address.
        stamp: changes when the file does.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def path(self) -> str: ...  # noqa: D102
    @property
    def stamp(self) -> int: ...  # noqa: D102


File = TypeVar("File", bound=RemoteFile)


class RemoteFolder(Protocol[File]):
    """Files elsewhere, read by ranges; several threads may, and it may be pickled."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def files(self) -> Sequence[File]:
        """Its LoRAs, in the order in which they are listed."""
        ...

    def only(self, file: File) -> Self:
        """The same folder with one file and what belongs to it."""
        ...

    def read(self, file: File, encoder: Encoder) -> HubModel:
        """Read one file: its header, and of its data what the experts of its family need.

        Raises:
            FileError: it is unsafe, corrupt, or holds no update that can be read.
            FetchError: it is not sent.
        """
        ...


def is_remote(place: str) -> bool:
    """Whether a place is the address of something elsewhere, as ``hf://`` or ``s3://``."""
    return ADDRESS.match(place) is not None


def open_folder(place: str) -> RemoteFolder[Any]:
    """List a place elsewhere: a repository of the hub, or a folder of a store that fsspec knows.

    Raises:
        FetchError: it cannot be listed, or has nothing to read.
    """
    return HubRepository.open(place) if place.startswith(HUB) else StoreFolder.open(place)
