"""Downloads a CLIP from the Hugging Face hub; ``loradex space use`` alone does so, after it has said the size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FetchError
from loradex.retrieval.space.clip_files import (
    TOKENIZER_FILES,
    WEIGHTS_FILES,
    ClipFiles,
    ClipSource,
    cached_file,
    find_clip,
    first_line,
)
from loradex.retrieval.space.text_tower import CONFIG_FILE

TIMEOUT: Final = 30.0  # seconds without an answer
CHECK: Final = "check the name, the connection and HF_TOKEN"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository of the hub, with its size in bytes."""

    repository: str
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Download:
    """What has to be fetched for a CLIP.

    Attributes:
        source: the CLIP.
        files: that are not in the hub's cache yet.
        endpoint: the address of the hub.
        cache: the folder that they go to.
    """

    source: ClipSource
    files: tuple[HubFile, ...]
    endpoint: str
    cache: Path

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)

    @classmethod
    def plan(cls, source: ClipSource) -> "Download":
        """Ask the hub for the sizes; no file is fetched.

        Raises:
            FetchError: the hub cannot be used, or has no weights of this CLIP as safetensors.
        """
        from huggingface_hub import HfApi, constants

        endpoint, repository = HfApi().endpoint, str(source.repository)
        of_model = list_sizes(repository)
        weights = next((file for file in WEIGHTS_FILES if file in of_model), None)
        if weights is None:
            raise FetchError(
                f"{endpoint}/{repository}: expected weights as {WEIGHTS_FILES[0]}, found none; no pickle is read, so use another CLIP"
            )
        if source.config is None and CONFIG_FILE not in of_model:
            raise FetchError(
                f"{endpoint}/{repository}: expected {CONFIG_FILE}, found none; this is no CLIP of open_clip, use another"
            )
        names = [weights, *([] if source.config else [CONFIG_FILE])]
        files = [HubFile(repository, name, of_model[name]) for name in names]
        # A repository without a config of ours may have one that asks for its own tokenizer.
        tokenizer = source.tokenizer or (repository if source.config is None else None)
        if tokenizer:
            sizes = of_model if tokenizer == repository else list_sizes(tokenizer)
            files += [HubFile(tokenizer, name, sizes[name]) for name in TOKENIZER_FILES if name in sizes]
        missing = tuple(file for file in files if cached_file(file.repository, file.name) is None)
        return cls(source, missing, endpoint, Path(constants.HF_HUB_CACHE))

    def fetch(self) -> ClipFiles:
        """Fetch all files into the cache of the hub's library, which shows its progress and continues what was cut off.

        Raises:
            FetchError: a file cannot be fetched, or the hub has not all that the CLIP needs.
            CheckpointError: as ``find_clip``.
        """
        from huggingface_hub import hf_hub_download

        for file in self.files:
            try:
                hf_hub_download(file.repository, file.name)
            except Exception as error:  # of several libraries, by the ways in which a server can fail
                raise FetchError(
                    f"{self.endpoint}/{file.repository}/{file.name}: cannot be fetched: {first_line(error)}; {CHECK}"
                ) from None
        files = find_clip(self.source, cached_file)
        if files is None:
            raise FetchError(
                f"{self.endpoint}/{self.source.repository}: expected config, weights and tokenizer, found no tokenizer; use another CLIP"
            )
        return files


def list_sizes(repository: str) -> dict[str, int]:
    """The size in bytes of each file of a repository, by name.

    Raises:
        FetchError: the hub cannot be used, or has no such repository.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        siblings = api.model_info(repository, files_metadata=True, timeout=TIMEOUT).siblings or []
        sizes = {file.rfilename: file.size for file in siblings}
    except Exception as error:  # of several libraries, by the ways in which a server can fail
        raise FetchError(f"{api.endpoint}/{repository}: cannot be listed: {first_line(error)}; {CHECK}") from None
    return {name: size for name, size in sizes.items() if type(size) is int and size >= 0}
