"""The LoRAs of a folder in a file system that fsspec knows (``s3://``, ``gs://``, ``file://``, ``memory://``)."""

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
from loradex.retrieval.lora.peft_config import CONFIG_NAME
from loradex.retrieval.lora.weights_folder import WEIGHTS_SUFFIX, is_weights_name
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.hub_listing import MAX_ENTRIES, config_beside, first_line, refuse_unprintable_path
from loradex.retrieval.remote.hub_repository import MAX_FILES
from loradex.retrieval.remote.model import RemoteModel, read_model
from loradex.retrieval.remote.ranges import Interrupted, read_with_retries

# a password, or what may be a token in a web address
SECRET: Final = re.compile(r"\w[\w+.-]*://.*:.*@|https?://([^/?#]*@|.*\?)", re.DOTALL)
MAX_DEPTH: Final = 64  # of folders in folders
CHANGE_FIELDS: Final = (  # in which file systems state that a file changed
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
LASTING_ERRORS: Final = (FileNotFoundError, PermissionError, IsADirectoryError)  # which another try does not mend


@dataclass(frozen=True, slots=True)
class FsspecFile:
    """A file as its file system lists it.

    Attributes:
        name: its path in the folder.
        size: in bytes.
        path: its address.
        stamp: changes when the file does; made of what the file system states.
    """

    name: str
    size: int
    path: str
    stamp: int

    @property
    def id(self) -> str:
        """Id made of its address, as a file system states nothing that a moved file keeps."""
        return hashlib.sha256(f"store file {self.path}".encode()).hexdigest()[:20]


@dataclass(slots=True)
class FsspecReader:
    """Reads byte ranges of one file.

    Attributes:
        name: its address.
        size: in bytes.
        received: how many bytes came so far.
    """

    name: str
    size: int
    received: int = 0

    def read(self, start: int, end: int) -> bytes:
        """Read the bytes from ``start`` to before ``end``; faults that may pass are retried.

        Raises:
            FetchError: the file system does not send them.
        """
        return read_with_retries(self.name, start, end, self._request)

    def _request(self, start: int, end: int) -> bytes:
        """One request."""
        file_system, path = file_system_of(self.name)
        try:
            raw = bytes(file_system.cat_file(path, start, end))
        except LASTING_ERRORS as error:
            raise FetchError(
                f"{self.name}: expected a file that may be read, found: {first_line(error)}; check that it is there, and your rights"
            ) from None
        except Exception as error:
            raise Interrupted(first_line(error)) from None
        self.received += len(raw)
        if len(raw) != end - start:
            raise FetchError(
                f"{self.name}: expected bytes {start} to {end - 1}, found {len(raw)} bytes; the file changed, or the store ignores ranges"
            )
        return raw


@dataclass(frozen=True, slots=True)
class FsspecFolder:
    """A folder as it was listed; several threads may read from it.

    Attributes:
        name: its address.
        files: all its .safetensors files, at any depth.
        peft_configs: PEFT's configs by their paths in the folder.
    """

    name: str
    files: list[FsspecFile]
    peft_configs: dict[str, FsspecFile] = field(default_factory=dict)

    @classmethod
    def open(cls, address: str) -> "FsspecFolder":
        """List a folder, or the folder of one file, of which that file alone is taken.

        Raises:
            FetchError: the address is malformed, there is nothing to read, or the file system cannot be used.
        """
        if SECRET.match(address):
            raise FetchError(
                "address of a store: expected none with a password, which a zoo would keep; put it where fsspec looks, as ~/.config/fsspec"
            )
        is_file = is_weights_name(address)
        folder = address.rpartition("/")[0] if is_file else address.rstrip("/")
        listed = list(list_folder(folder, 1 if is_file else MAX_DEPTH))
        files = [file for file in listed if is_weights_name(file.name) and (not is_file or file.path == address)]
        if not files:
            raise FetchError(f"{address}: expected {WEIGHTS_SUFFIX} files, found none; check the address")
        if len(files) > MAX_FILES:
            raise FetchError(
                f"{address}: expected at most {MAX_FILES} {WEIGHTS_SUFFIX} files, found {len(files)}; index its folders one by one"
            )
        peft_configs = {file.name: file for file in listed if PurePosixPath(file.name).name == CONFIG_NAME}
        return cls(folder, files, peft_configs)

    def only(self, file: FsspecFile) -> "FsspecFolder":
        """The same folder with one file and the config beside it."""
        return replace(self, files=[file], peft_configs=config_beside(file.name, self.peft_configs))

    def read(self, file: FsspecFile, encoder: Encoder) -> RemoteModel:
        """Read one file: its header, and of its data the layers that the expert of its family reads.

        Raises:
            FileError: it is unsafe or corrupt, or holds no update that can be read.
            FetchError: the file system does not send the bytes.
        """
        configs = config_beside(file.name, self.peft_configs)
        siblings = {
            PurePosixPath(path).name: FsspecReader(config.path, config.size) for path, config in configs.items()
        }
        return read_model(file.id, RemoteHeader.fetch(FsspecReader(file.path, file.size), siblings), encoder)


def list_folder(folder: str, max_depth: int) -> Iterator[FsspecFile]:
    """List the .safetensors files and PEFT's configs below a folder, but not what is hidden or below links.

    Raises:
        FetchError: they cannot be listed, are too many, or have no valid name and size.
    """
    file_system, root = file_system_of(folder)
    entries = 0
    try:
        file_system.invalidate_cache()
        for parent, folders, files in file_system.walk(root, maxdepth=max_depth, detail=True, on_error="raise"):
            for name in [name for name, info in folders.items() if name.startswith(".") or info.get("islink")]:
                del folders[name]
            entries += len(folders) + len(files)
            if entries > MAX_ENTRIES:
                raise FetchError(
                    f"{folder}: expected at most {MAX_ENTRIES} files, found more; index its folders one by one"
                )
            subfolder = parent.rstrip("/")[len(root.rstrip("/")) :].lstrip("/")
            for name, info in sorted(files.items()):
                if (is_weights_name(name) or name == CONFIG_NAME) and not name.startswith("."):
                    yield listed_file(folder, f"{subfolder}/{name}".lstrip("/"), info)
    except (FetchError, GeneratorExit):
        raise
    except Exception as error:
        raise FetchError(
            f"{folder}: cannot be listed: {first_line(error)}; check the address, the connection and your rights"
        ) from None


def listed_file(folder: str, name: str, info: dict[str, Any]) -> FsspecFile:
    """A file of a listing.

    Raises:
        FetchError: its name or size is not valid.
    """
    refuse_unprintable_path(name)
    size = info.get("size")
    if type(size) is not int or not 0 <= size < 2**63:
        raise FetchError(
            f"{folder}: expected a size of each file, found {ascii((name, size))[:200]}; index another store"
        )
    changes = repr([str(info.get(key)) for key in CHANGE_FIELDS]).encode()
    stamp = int.from_bytes(hashlib.sha256(changes).digest()[:8]) >> 1
    return FsspecFile(name, size, f"{folder}/{name}", stamp)


def file_system_of(address: str) -> tuple[AbstractFileSystem, str]:
    """The file system of an address, and the path in it.

    Raises:
        FetchError: fsspec knows no such file system, or its package is missing.
    """
    scheme = address.partition("://")[0]
    try:
        if "::" in address:
            raise ValueError("addresses in one another")
        file_system, path = url_to_fs(address)
        return file_system, str(path)
    except ImportError as error:
        raise FetchError(
            f"{address}: expected a package that reads {scheme}://, found none: {first_line(error)}; install it with pip"
        ) from None
    except Exception as error:
        raise FetchError(
            f"{address}: expected hf:// or an address that fsspec reads, found: {first_line(error)}; check how it is written"
        ) from None
