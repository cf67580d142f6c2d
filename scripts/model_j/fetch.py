"""Fetching one of Model-J's Stable Diffusion subsets: whole files by huggingface_hub, or some layers of each by range reads."""

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
from loradex.retrieval.remote.hub_listing import HUB_ERRORS, brief_of, commit_of, files_of, refuse_escapes
from loradex.retrieval.remote.ranges import RemoteFile
from loradex.retrieval.training.labelled_loras import SPLITS
from scripts.model_j import REPOSITORIES
from scripts.model_j.slices import SliceReader

WEIGHTS: Final = re.compile(r"[a-z_]+/model_idx_\d{1,9}/[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors")

Report = Callable[[int, int, str], None]  # how many files are done, of how many, and the last


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """What to fetch and from where."""

    subset: str
    out: Path
    layers: tuple[str, ...] = ()  # diffusers' names; whole files if none
    endpoint: str | None = None  # of the hub; else HF_ENDPOINT's or the public one
    revision: str | None = None
    limit: int | None = None  # models of each split
    jobs: int = 8


@dataclass(slots=True)
class Fetched:
    """What was done.

    Attributes:
        there: files that needed nothing.
        fetched: files that were written.
        refused: reasons by file.
        received: bytes of the files' data that were read; whole: the size of those files.
    """

    subset: str
    there: int = 0
    fetched: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    received: int = 0
    whole: int = 0

    def __str__(self) -> str:
        """One line of figures."""
        share = (
            f", read {self.received:,} of {self.whole:,} bytes ({100 * self.received / self.whole:.2f} %)"
            if self.whole
            else ""
        )
        refused = f", {len(self.refused)} refused" if self.refused else ""
        return f"{self.subset}: {self.fetched} models fetched, {self.there} were there{refused}{share}"


def fetch(options: FetchOptions, report: Report = lambda done, total, name: None) -> Fetched:
    """Fetch a subset into a folder of Model-J's layout; files that are there are skipped, so that a run that was stopped goes on.

    Files that are refused are named in the answer, the others are fetched.

    Raises:
        FetchError: the hub cannot be used, or lists no weights or a name that leads out of the folder.
        FileUnsupported: the first file lacks a layer that is asked for.
    """
    api = HfApi(endpoint=options.endpoint)
    repository, done = REPOSITORIES[options.subset], Fetched(options.subset)
    revision, files = listed(api, repository, options)
    headers, reader = build_hf_headers(library_name="loradex"), SliceReader(options.layers)

    def work(name: str, size: int) -> tuple[int, int]:
        if not options.layers:
            return fetch_whole(api, repository, revision, name, size, options.out)
        url = hf_hub_url(repository, name, revision=revision, endpoint=api.endpoint)
        return fetch_layers(RemoteFile(name, url, size, headers), reader, options.out / name)

    fetch_all(
        {name: partial(work, name, size) for name, size in files.items()}, options.jobs, done, report, (FileError,)
    )
    return done


def fetch_all(
    work: Mapping[str, Callable[[], tuple[int, int]]],
    jobs: int,
    done: Fetched,
    report: Report,
    refusals: tuple[type[LoradexError], ...],
) -> None:
    """Do some work for each file, several at a time; what ends in a refusal is named in ``done``, the others go on.

    Raises:
        FileUnsupported: the first file cannot be used, so that no other will.
        LoradexError: another error than ``refusals``.
    """
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        waiting = {pool.submit(one): name for name, one in work.items()}
        try:
            for number, future in enumerate(as_completed(waiting), 1):
                name = waiting[future]
                try:
                    received, whole = future.result()
                except refusals as error:
                    if isinstance(error, FileUnsupported) and not done.fetched + done.there:
                        raise
                    done.refused[name] = str(error)
                else:
                    done.received, done.whole = done.received + received, done.whole + whole
                    done.there, done.fetched = done.there + (not whole), done.fetched + bool(whole)
                report(number, len(work), name)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def listed(api: HfApi, repository: str, options: FetchOptions) -> tuple[str, dict[str, int]]:
    """The commit, and the sizes of all weights in it by name.

    Raises:
        FetchError: the repository cannot be listed, or what it lists cannot be used.
    """
    revision = commit_of(api, repository, options.revision)
    files = {
        name: size for split in SPLITS for name, size in weights_of(api, repository, revision, split, options.limit)
    }
    if not files:
        raise FetchError(
            f"{api.endpoint}/{repository}: expected weights as <split>/model_idx_NNNN/*.safetensors, found none; check --revision"
        )
    return revision, files


def weights_of(api: HfApi, repository: str, revision: str, split: str, limit: int | None) -> Iterator[tuple[str, int]]:
    """Name and size of the weights of one split, in the order of the hub; nothing where the split is missing.

    Raises:
        FetchError: the split cannot be listed, or a name leads out of the folder.
    """
    count = 0
    for entry in files_of(api, repository, revision, split):
        refuse_escapes(entry.path)
        if WEIGHTS.fullmatch(entry.path) and entry.path.startswith(f"{split}/") and (limit is None or count < limit):
            count += 1
            yield entry.path, entry.size
        if count == limit:
            return


def fetch_whole(api: HfApi, repository: str, revision: str, name: str, size: int, out: Path) -> tuple[int, int]:
    """Download one file unless it is there: bytes read, and of how many.

    Raises:
        FetchError: the hub does not send it.
    """
    path = out / name
    if path.is_file() and path.stat().st_size == size:
        return 0, 0
    try:
        hf_hub_download(repository, name, revision=revision, endpoint=api.endpoint, local_dir=out)
    except HUB_ERRORS as error:
        raise FetchError(f"{name}: cannot be downloaded: {brief_of(error)}; run it again to go on") from None
    return size, size


def fetch_layers(remote: RemoteFile, reader: SliceReader, path: Path) -> tuple[int, int]:
    """Write the layers of one file unless they are there, with those that are: bytes read, and of how many.

    Raises:
        FetchError, FileError: as ``SliceReader.read``.
    """
    there = layers_in(path)
    if there >= set(reader.layers):
        return 0, 0
    raw = reader.read(remote, sorted(there))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(raw)
    temporary.replace(path)
    return remote.received, remote.size


def layers_in(path: Path) -> set[str]:
    """The layers of a file; none where it is missing or damaged."""
    try:
        return set(LoraFile.open(path).layers)
    except LoradexError:
        return set()
