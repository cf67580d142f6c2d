"""Fetches one of Model-J's Stable Diffusion subsets: whole files with huggingface_hub, or layers by range reads."""

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi, hf_hub_download, hf_hub_url
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from loradex.retrieval.errors import FetchError, FileError, FileUnsupported, LoradexError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.remote.hub_listing import HUB_ERRORS, first_line, list_files, refuse_unsafe_path, resolve_commit
from loradex.retrieval.remote.ranges import HttpFile
from loradex.retrieval.training.labelled_loras import SPLITS
from scripts.model_j import REPOSITORIES
from scripts.model_j.slices import SliceReader

WEIGHTS_PATH: Final = re.compile(r"[a-z_]+/model_idx_\d{1,9}/[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")

ProgressCallback = Callable[[int, int, str], None]  # how many steps are done, of how many, and the name of the last


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What to fetch, and from where."""

    subset: str
    out: Path
    layers: tuple[str, ...] = ()  # diffusers' names; whole files if none
    endpoint: str | None = None  # of the hub; by default $HF_ENDPOINT or the public one
    revision: str | None = None
    limit: int | None = None  # models of each split
    jobs: int = 8


@dataclass(slots=True)
class FetchResult:
    """What was fetched.

    Attributes:
        subset: the subset of Model-J.
        present: number of files that were complete before.
        fetched: number of files that were written.
        refused: the reason for each file that was refused, by file.
        received: bytes of the files' data that were read.
        total_bytes: size of the files that were fetched.
    """

    subset: str
    present: int = 0
    fetched: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    received: int = 0
    total_bytes: int = 0

    def __str__(self) -> str:
        """The numbers in one line."""
        share = (
            f", read {self.received:,} of {self.total_bytes:,} bytes ({100 * self.received / self.total_bytes:.2f} %)"
            if self.total_bytes
            else ""
        )
        refused = f", {len(self.refused)} refused" if self.refused else ""
        return f"{self.subset}: {self.fetched} models fetched, {self.present} already there{refused}{share}"


def fetch(options: FetchOptions, report: ProgressCallback = lambda done, total, name: None) -> FetchResult:
    """Fetch a subset into a folder of Model-J's layout.

    Files that are complete are skipped, so that a stopped run can be continued. Files that are refused are named in the
    result; the others are fetched.

    Raises:
        FetchError: the hub cannot be used, or lists no weights, or a name that leads out of the folder.
        FileUnsupported: the first file lacks one of the layers.
    """
    api = HfApi(endpoint=options.endpoint)
    repository, result = REPOSITORIES[options.subset], FetchResult(options.subset)
    revision, files = find_weights(api, repository, options)
    headers, reader = build_hf_headers(library_name="loradex"), SliceReader(options.layers)

    def fetch_one(name: str, size: int) -> tuple[int, int]:
        if not options.layers:
            return fetch_file(api, repository, revision, name, size, options.out)
        url = hf_hub_url(repository, name, revision=revision, endpoint=api.endpoint)
        return fetch_layers(HttpFile(name, url, size, headers), reader, options.out / name)

    fetch_all(
        {name: partial(fetch_one, name, size) for name, size in files.items()},
        options.jobs,
        result,
        report,
        (FileError,),
    )
    return result


def fetch_all(
    tasks: Mapping[str, Callable[[], tuple[int, int]]],
    jobs: int,
    result: FetchResult,
    report: ProgressCallback,
    refusals: tuple[type[LoradexError], ...],
) -> None:
    """Run a task for each file, several at a time; refused files are named in ``result``, and the others continue.

    Each task returns the bytes that it read and the size of its file, or zeros if the file was complete.

    Raises:
        FileUnsupported: the first file cannot be used, so no other can.
        LoradexError: a task failed with an error that is none of ``refusals``.
    """
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        futures = {pool.submit(task): name for name, task in tasks.items()}
        try:
            for completed, future in enumerate(as_completed(futures), 1):
                name = futures[future]
                try:
                    received, size = future.result()
                except refusals as error:
                    if isinstance(error, FileUnsupported) and not result.fetched + result.present:
                        raise
                    result.refused[name] = str(error)
                else:
                    result.received, result.total_bytes = result.received + received, result.total_bytes + size
                    result.present, result.fetched = result.present + (not size), result.fetched + bool(size)
                report(completed, len(tasks), name)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def find_weights(api: HfApi, repository: str, options: FetchOptions) -> tuple[str, dict[str, int]]:
    """The commit, and the size of each weights file in it by name.

    Raises:
        FetchError: the repository cannot be listed, or its list cannot be used.
    """
    revision = resolve_commit(api, repository, options.revision)
    files = {
        name: size for split in SPLITS for name, size in list_weights(api, repository, revision, split, options.limit)
    }
    if not files:
        raise FetchError(
            f"{api.endpoint}/{repository}: expected weights as <split>/model_idx_NNNN/*.safetensors, found none; check --revision"
        )
    return revision, files


def list_weights(
    api: HfApi, repository: str, revision: str, split: str, limit: int | None
) -> Iterator[tuple[str, int]]:
    """Yield name and size of the weights files of a split, in the hub's order; nothing if the split is missing.

    Raises:
        FetchError: the split cannot be listed, or a name leads out of the folder.
    """
    count = 0
    for entry in list_files(api, repository, revision, split):
        refuse_unsafe_path(entry.path)
        if (
            WEIGHTS_PATH.fullmatch(entry.path)
            and entry.path.startswith(f"{split}/")
            and (limit is None or count < limit)
        ):
            count += 1
            yield entry.path, entry.size
        if count == limit:
            return


def fetch_file(api: HfApi, repository: str, revision: str, name: str, size: int, out: Path) -> tuple[int, int]:
    """Download one file unless it is complete: bytes read, and the size of the file.

    Raises:
        FetchError: the hub does not send it.
    """
    path = out / name
    if path.is_file() and path.stat().st_size == size:
        return 0, 0
    try:
        hf_hub_download(repository, name, revision=revision, endpoint=api.endpoint, local_dir=out)
    except HUB_ERRORS as error:
        raise FetchError(f"{name}: cannot be downloaded: {first_line(error)}; run it again to continue") from None
    return size, size


def fetch_layers(remote: HttpFile, reader: SliceReader, path: Path) -> tuple[int, int]:
    """Write the layers of one file unless it has them; keeps its other layers. Bytes read, and the size of the file.

    Raises:
        FetchError, FileError: as ``SliceReader.read``.
    """
    stored = stored_layers(path)
    if stored >= set(reader.layers):
        return 0, 0
    data = reader.read(remote, sorted(stored))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(data)
    temporary.replace(path)
    return remote.received, remote.size


def stored_layers(path: Path) -> set[str]:
    """The layers of a local file; none if it is missing or damaged."""
    try:
        return set(LoraFile.open(path).layers)
    except LoradexError:
        return set()
