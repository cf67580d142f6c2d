"""The LoRAs of a repository of a hub at one commit."""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Final

from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError
from loradex.retrieval.lora.peft_config import CONFIG_NAME
from loradex.retrieval.lora.weights_folder import WEIGHTS_SUFFIX, is_weights_name
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.hub_listing import config_beside, list_files, refuse_unsafe_path, resolve_commit
from loradex.retrieval.remote.model import RemoteModel, read_model
from loradex.retrieval.remote.ranges import HttpFile

ADDRESS: Final = re.compile(r"hf://(\w[\w.-]{0,95}/\w[\w.-]{0,95})(?:@([^\s@]{1,200}))?", re.ASCII)
MAX_FILES: Final = 100_000  # .safetensors files of a repository
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository, as the hub lists it.

    Attributes:
        name: its path in the repository.
        size: in bytes.
        path: its address, ``hf://owner/name@commit/`` and its name.
        sha256: of the whole file, if the hub lists it.
    """

    name: str
    size: int
    path: str
    sha256: str | None = None

    @classmethod
    def from_entry(cls, entry: RepoFile, repository: str) -> "HubFile":
        """Make it from an entry of a listing.

        Args:
            entry: of the listing.
            repository: the address of the repository.

        Raises:
            FetchError: its path leads out of the repository, is too long, or is not printable.
        """
        refuse_unsafe_path(entry.path)
        sha256 = entry.lfs.sha256 if entry.lfs else None
        valid = isinstance(sha256, str) and SHA256.fullmatch(sha256)
        return cls(entry.path, entry.size, f"{repository}/{entry.path}", sha256 if valid else None)

    @property
    def stamp(self) -> int:
        """Always the same: if the file changes, so does the commit in its address."""
        return 0

    @property
    def id(self) -> str:
        """Id made of the SHA-256 that the hub lists, which a moved or renamed file keeps; else of the address.

        The file is not read whole, so this rests on the hub's word. It differs from the id that the same file has on
        this machine, which is made of its weights.
        """
        return hashlib.sha256(f"hub file {self.sha256 or self.path}".encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository at one commit; several threads may read from it.

    Attributes:
        name: owner and name.
        commit: 40 hexadecimal digits.
        endpoint: of the hub.
        files: all its .safetensors files, in the order of the hub.
        peft_configs: PEFT's configs by their paths in the repository.
    """

    name: str
    commit: str
    endpoint: str
    files: list[HubFile]
    peft_configs: dict[str, HubFile]

    @property
    def address(self) -> str:
        """``hf://owner/name@commit``."""
        return f"hf://{self.name}@{self.commit}"

    @classmethod
    def open(cls, address: str, endpoint: str | None = None) -> "HubRepository":
        """List a repository.

        Args:
            address: ``hf://owner/name`` or ``hf://owner/name@revision``, where the revision is a branch, a tag or a
                commit.
            endpoint: of another hub or a mirror; None for HF_ENDPOINT or the public hub.

        Raises:
            FetchError: the address is malformed, there is nothing to read, or the hub cannot be used.
        """
        parsed = ADDRESS.fullmatch(address)
        if parsed is None:
            raise FetchError(
                f"{ascii(address)[:200]}: expected hf://owner/name or hf://owner/name@revision, found something else; check how it is written"
            )
        name, revision = parsed[1], parsed[2]
        api = HfApi(endpoint=endpoint)
        commit = resolve_commit(api, name, revision)
        repository = f"hf://{name}@{commit}"
        files: dict[str, HubFile] = {}
        peft_configs: dict[str, HubFile] = {}
        for entry in list_files(api, name, commit):
            if is_weights_name(entry.path):
                files[entry.path] = HubFile.from_entry(entry, repository)
            elif PurePosixPath(entry.path).name == CONFIG_NAME:
                peft_configs[entry.path] = HubFile.from_entry(entry, repository)
            if len(files) > MAX_FILES:
                raise FetchError(
                    f"{repository}: expected at most {MAX_FILES} {WEIGHTS_SUFFIX} files, found more; index another repository"
                )
        if not files:
            raise FetchError(
                f"{repository}: expected {WEIGHTS_SUFFIX} files, found none; check the name and the revision"
            )
        return cls(name, commit, str(api.endpoint), list(files.values()), peft_configs)

    def only(self, file: HubFile) -> "HubRepository":
        """The same repository with one file and the config beside it."""
        return replace(self, files=[file], peft_configs=config_beside(file.name, self.peft_configs))

    def read(self, file: HubFile, encoder: Encoder) -> RemoteModel:
        """Read one file: its header, and of its data the layers that the expert of its family reads.

        Raises:
            FileError: it is unsafe or corrupt, or holds no update that can be read.
            FetchError: the server does not send the bytes.
        """
        return read_model(file.id, self.header(file), encoder)

    def header(self, file: HubFile) -> RemoteHeader:
        """The header of one file, which fetches tensors and the config beside it on first use.

        Raises:
            FileError: the file is unsafe or corrupt.
            FetchError: the server does not send the bytes.
        """
        configs = config_beside(file.name, self.peft_configs)
        siblings = {PurePosixPath(path).name: self._http_file(config) for path, config in configs.items()}
        return RemoteHeader.fetch(self._http_file(file), siblings)

    def _http_file(self, file: HubFile) -> HttpFile:
        url = hf_hub_url(self.name, file.name, revision=self.commit, endpoint=self.endpoint)
        return HttpFile(file.path, url, file.size, build_hf_headers(library_name="loradex"))
