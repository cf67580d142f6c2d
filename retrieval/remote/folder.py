"""Folders that are not on this machine, opened by their addresses."""

import re
from collections.abc import Sequence
from typing import Any, Final, Protocol, Self, TypeVar

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.remote.fsspec_folder import FsspecFolder
from loradex.retrieval.remote.hub_repository import HubRepository
from loradex.retrieval.remote.model import RemoteModel

ADDRESS: Final = re.compile(r"[a-z][a-z0-9+.-]+://", re.ASCII)
HUB_SCHEME: Final = "hf://"


class RemoteFile(Protocol):
    """A file as its folder lists it.

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


FileT = TypeVar("FileT", bound=RemoteFile)


class RemoteFolder(Protocol[FileT]):
    """A remote folder, whose files are read by byte ranges; several threads may use it, and it can be pickled."""

    @property
    def name(self) -> str:
        """Name of the folder."""
        ...

    @property
    def files(self) -> Sequence[FileT]:
        """Its .safetensors files, in the order in which they are listed."""
        ...

    def only(self, file: FileT) -> Self:
        """The same folder with one file and what belongs to it."""
        ...

    def read(self, file: FileT, encoder: Encoder) -> RemoteModel:
        """Read one file: its header, and of its data the layers that the expert of its family reads.

        Raises:
            FileError: it is unsafe or corrupt, or holds no update that can be read.
            FetchError: its bytes are not sent.
        """
        ...


def is_remote(path: str) -> bool:
    """Whether a path is an address, such as ``hf://...`` or ``s3://...``."""
    return ADDRESS.match(path) is not None


def open_folder(address: str) -> RemoteFolder[Any]:
    """List a remote folder: a repository of a hub, or a folder of a file system that fsspec knows.

    Raises:
        FetchError: it cannot be listed, or has nothing to read.
    """
    return HubRepository.open(address) if address.startswith(HUB_SCHEME) else FsspecFolder.open(address)
