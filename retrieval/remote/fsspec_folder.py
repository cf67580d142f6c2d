"""LoRAs of a store that fsspec knows (``s3://``, ``gs://``, ``file://``, ``memory://``), listed, and read by ranges as those of a hub are."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Final

from fsspec.core import url_to_fs
from fsspec.spec import AbstractFileSystem

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError
from loradex.retrieval.lora.peft_config import CONFIG
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.hub_listing import MOST_ENTRIES, beside, brief_of, refuse_unreadable
from loradex.retrieval.remote.hub_repository import MOST_FILES, WEIGHTS
from loradex.retrieval.remote.model import HubModel, read_model
from loradex.retrieval.remote.ranges import Interrupted, ask_again

SECRET: Final = re.compile(
    r"\w[\w+.-]*://.*:.*@|https?://([^/?#]*@|.*\?)", re.DOTALL
)  # a password, or a token of a web address
DEEPEST: Final = 64  # folders in one another
MARKS: Final = (
    "ETag",
    "etag",
    "generation",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "modified",
    "updated",
    "created",
)
FINAL: Final = (FileNotFoundError, PermissionError, IsADirectoryError)  # what another try does not mend


@dataclass(frozen=True, slots=True)
class StoreFile:
    """A file as a store lists it.

    Attributes:
        name: its path in the folder.
        size: in bytes.
        path: its address.
        stamp: made of what the store says of its last change.
    """

    name: str
    size: int
    path: str
    stamp: int

    @property
    def id(self) -> str:
        """A name of the file, made of its address: a store tells nothing that a moved file keeps."""
        return hashlib.sha256(f"store file {self.path}".encode()).hexdigest()[:20]


@dataclass(slots=True)
class StoreBytes:
    """The bytes of one file of a store; ``received`` counts those that came so far."""

    name: str
    size: int
    received: int = 0

    def read(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``, tried again after faults that pass.

        Raises:
            FetchError: the store does not send them.
        """
        return ask_again(self.name, start, end, self._ask)

    def _ask(self, start: int, end: int) -> bytes:
        """One request."""
        system, path = system_of(self.name)
        try:
            raw = bytes(system.cat_file(path, start, end))
        except FINAL as error:
            raise FetchError(
                f"{self.name}: expected a file that may be read, found: {brief_of(error)}; check that it is there, and your rights"
            ) from None
        except Exception as error:
            raise Interrupted(brief_of(error)) from None
        self.received += len(raw)
        if len(raw) != end - start:
            raise FetchError(
                f"{self.name}: expected bytes {start} to {end - 1}, found {len(raw)} bytes; the file changed, or the store ignores ranges"
            )
        return raw


@dataclass(frozen=True, slots=True)
class StoreFolder:
    """A folder of a store, as it was listed; several threads may read from it.

    Attributes:
        name: its address.
        files: all of its .safetensors files, at any depth.
        settings: PEFT's settings by their path in the folder.
    """

    name: str
    files: list[StoreFile]
    settings: dict[str, StoreFile] = field(default_factory=dict)

    @classmethod
    def open(cls, place: str) -> "StoreFolder":
        """List a folder, or the one file that an address names.

        Raises:
            FetchError: the address is none, there is nothing to read, or the store cannot be used.
        """
        if SECRET.match(place):
            raise FetchError(
                "address of a store: expected none with a password, which a zoo would keep; put it where fsspec looks, as ~/.config/fsspec"
            )
        single = place.endswith(WEIGHTS)
        folder = place.rpartition("/")[0] if single else place.rstrip("/")
        listed = list(listing(folder, 1 if single else DEEPEST))
        files = [file for file in listed if file.name.endswith(WEIGHTS) and (not single or file.path == place)]
        if not files:
            raise FetchError(f"{place}: expected {WEIGHTS} files, found none; check the address")
        if len(files) > MOST_FILES:
            raise FetchError(
                f"{place}: expected at most {MOST_FILES} {WEIGHTS} files, found {len(files)}; index its folders one by one"
            )
        return cls(folder, files, {file.name: file for file in listed if PurePosixPath(file.name).name == CONFIG})

    def only(self, file: StoreFile) -> "StoreFolder":
        """The same folder with one file and the settings beside it."""
        return replace(self, files=[file], settings=beside(file.name, self.settings))

    def read(self, file: StoreFile, encoder: Encoder) -> HubModel:
        """Read one file by ranges: its header, and of its data what the experts of its family need.

        Raises:
            FileError: it is unsafe, corrupt, or holds no update that can be read.
            FetchError: the store does not send what is asked.
        """
        siblings = {
            PurePosixPath(path).name: StoreBytes(settings.path, settings.size)
            for path, settings in beside(file.name, self.settings).items()
        }
        return read_model(file.id, RemoteHeader.fetch(StoreBytes(file.path, file.size), siblings), encoder)


def listing(folder: str, depth: int) -> Iterator[StoreFile]:
    """The weights and settings below a folder, in order; what is hidden, and links to folders, are left out.

    Raises:
        FetchError: they cannot be listed, are too many, or are listed without a sound name and size.
    """
    system, root = system_of(folder)
    seen = 0
    try:
        system.invalidate_cache()
        for parent, folders, files in system.walk(root, maxdepth=depth, detail=True, on_error="raise"):
            for name in [name for name, info in folders.items() if name.startswith(".") or info.get("islink")]:
                del folders[name]
            seen += len(folders) + len(files)
            if seen > MOST_ENTRIES:
                raise FetchError(
                    f"{folder}: expected at most {MOST_ENTRIES} files, found more; index its folders one by one"
                )
            below = parent.rstrip("/")[len(root.rstrip("/")) :].lstrip("/")
            for name, info in sorted(files.items()):
                if (name.endswith(WEIGHTS) or name == CONFIG) and not name.startswith("."):
                    yield listed_file(folder, f"{below}/{name}".lstrip("/"), info)
    except (FetchError, GeneratorExit):
        raise
    except Exception as error:
        raise FetchError(
            f"{folder}: cannot be listed: {brief_of(error)}; check the address, the connection and your rights"
        ) from None


def listed_file(folder: str, name: str, info: dict[str, Any]) -> StoreFile:
    """A file of a listing.

    Raises:
        FetchError: its name or size is unsound.
    """
    refuse_unreadable(name)
    size = info.get("size")
    if type(size) is not int or not 0 <= size < 2**63:
        raise FetchError(
            f"{folder}: expected a size of each file, found {ascii((name, size))[:200]}; index another store"
        )
    marks = repr([str(info.get(mark)) for mark in MARKS]).encode()
    return StoreFile(name, size, f"{folder}/{name}", int.from_bytes(hashlib.sha256(marks).digest()[:8]) >> 1)


def system_of(address: str) -> tuple[AbstractFileSystem, str]:
    """What reads an address, and the path that it has there.

    Raises:
        FetchError: nothing reads such addresses, or its package is missing.
    """
    kind = address.partition("://")[0]
    try:
        if "::" in address:
            raise ValueError("addresses in one another")
        system, path = url_to_fs(address)
        return system, str(path)
    except ImportError as error:
        raise FetchError(
            f"{address}: expected a package that reads {kind}://, found none: {brief_of(error)}; install it with pip"
        ) from None
    except Exception as error:
        raise FetchError(
            f"{address}: expected hf:// or an address that fsspec reads, found: {brief_of(error)}; check how it is written"
        ) from None
