"""The LoRAs of one repository of a hub, at one commit."""

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
from loradex.retrieval.lora.peft_config import CONFIG
from loradex.retrieval.remote.header import RemoteHeader
from loradex.retrieval.remote.hub_listing import beside, commit_of, files_of, refuse_escapes
from loradex.retrieval.remote.model import HubModel, read_model
from loradex.retrieval.remote.ranges import RemoteFile

PLACE: Final = re.compile(r"hf://(\w[\w.-]{0,95}/\w[\w.-]{0,95})(?:@([^\s@]{1,200}))?", re.ASCII)
WEIGHTS: Final = ".safetensors"
MOST_FILES: Final = 100_000  # of a repository
SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub lists it.

    Attributes:
        name: its path in the repository.
        size: in bytes.
        path: ``hf://owner/name@commit/`` and its name.
        sha256: of the whole file, where the hub tells it.
    """

    name: str
    size: int
    path: str
    sha256: str | None = None

    @classmethod
    def of(cls, entry: RepoFile, place: str) -> "HubFile":
        """A file of a listing.

        Raises:
            FetchError: its name leads out of the repository, is too long or not printable.
        """
        refuse_escapes(entry.path)
        told = entry.lfs.sha256 if entry.lfs else None
        return cls(
            entry.path,
            entry.size,
            f"{place}/{entry.path}",
            told if isinstance(told, str) and SHA256.fullmatch(told) else None,
        )

    @property
    def stamp(self) -> int:
        """Always the same, as the commit in the path changes when the file does."""
        return 0

    @property
    def id(self) -> str:
        """A name of the file, made of the hub's SHA-256 of it, which a renamed or moved file keeps.

        Where the hub tells none, it is made of repository, commit and name. As the file is not read whole, it rests on the hub's word, and is
        another one than the id that the same file would have on this machine, which is made of its weights.
        """
        return hashlib.sha256(f"hub file {self.sha256 or self.path}".encode()).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository at one commit; several threads may read from it.

    Attributes:
        name: owner and name.
        commit: 40 hexadecimal digits.
        endpoint: of the hub.
        files: all of its .safetensors files, in the order of the hub.
        settings: PEFT's settings by their path in the repository.
    """

    name: str
    commit: str
    endpoint: str
    files: list[HubFile]
    settings: dict[str, HubFile]

    @property
    def place(self) -> str:
        """``hf://owner/name@commit``."""
        return f"hf://{self.name}@{self.commit}"

    @classmethod
    def open(cls, place: str, endpoint: str | None = None) -> "HubRepository":
        """List a repository.

        Args:
            place: ``hf://owner/name`` or ``hf://owner/name@revision``, where the revision is a branch, a tag or a commit.
            endpoint: of another hub or a mirror; else HF_ENDPOINT's or the public one.

        Raises:
            FetchError: the place is none, there is nothing to read, or the hub cannot be used.
        """
        read = PLACE.fullmatch(place)
        if read is None:
            raise FetchError(
                f"{ascii(place)[:200]}: expected hf://owner/name or hf://owner/name@revision, found something else; check how it is written"
            )
        api = HfApi(endpoint=endpoint)
        commit = commit_of(api, read[1], read[2])
        where = f"hf://{read[1]}@{commit}"
        weights: dict[str, HubFile] = {}
        settings: dict[str, HubFile] = {}
        for entry in files_of(api, read[1], commit):
            if entry.path.endswith(WEIGHTS):
                weights[entry.path] = HubFile.of(entry, where)
            elif PurePosixPath(entry.path).name == CONFIG:
                settings[entry.path] = HubFile.of(entry, where)
            if len(weights) > MOST_FILES:
                raise FetchError(
                    f"{where}: expected at most {MOST_FILES} {WEIGHTS} files, found more; index another repository"
                )
        if not weights:
            raise FetchError(f"{where}: expected {WEIGHTS} files, found none; check the name and the revision")
        return cls(read[1], commit, str(api.endpoint), list(weights.values()), settings)

    def only(self, file: HubFile) -> "HubRepository":
        """The same repository with one file and the settings beside it."""
        return replace(self, files=[file], settings=beside(file.name, self.settings))

    def read(self, file: HubFile, encoder: Encoder) -> HubModel:
        """Read one file by ranges: its header, and of its data what the experts of its family need.

        Raises:
            FileError: it is unsafe, corrupt, or holds no update that can be read.
            FetchError: the server does not send what is asked.
        """
        return read_model(file.id, self.header(file), encoder)

    def header(self, file: HubFile) -> RemoteHeader:
        """The header of one file; its tensors, and the settings beside it, are fetched when they are asked for.

        Raises:
            FileError: it is unsafe or corrupt.
            FetchError: the server does not send what is asked.
        """
        siblings = {
            PurePosixPath(path).name: self.remote(settings)
            for path, settings in beside(file.name, self.settings).items()
        }
        return RemoteHeader.fetch(self.remote(file), siblings)

    def remote(self, file: HubFile) -> RemoteFile:
        """A file, to be read by ranges."""
        url = hf_hub_url(self.name, file.name, revision=self.commit, endpoint=self.endpoint)
        return RemoteFile(file.path, url, file.size, build_hf_headers(library_name="loradex"))
