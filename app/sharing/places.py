"""Where a shared expert may lie: a file, a folder with one, or a repository of a hub."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from loradex.app.reporting import ProgressCallback
from loradex.app.sharing.shared_expert import EXPORT, FORMAT, MAX_FILE_BYTES
from loradex.retrieval.errors import CheckpointError, FetchError, FileError
from loradex.retrieval.lora.header import Header
from loradex.retrieval.remote import HubFile, HubRepository, is_remote

HUB: Final = "hf://"
# hf://owner/name, then perhaps @revision (a name, a commit, or refs/...), then perhaps /file
ADDRESS: Final = re.compile(r"(hf://[^/@\s]+/[^/@\s]+(?:@(?:refs/[^/\s]+/[^/\s]+|[^/\s]+))?)(?:/(.+))?")
MAX_CANDIDATES: Final = 1000  # files of a folder
MAX_REMOTE_CANDIDATES: Final = 20  # files of a repository, each of which costs a request
PART_BYTES: Final = 8 * 2**20  # of one request
SUFFIX: Final = ".safetensors"


def no_progress(done: int, total: int, name: str) -> None:
    """Report nothing."""


@contextmanager
def local_file(place: str, progress: ProgressCallback = no_progress) -> Iterator[Path]:
    """Yield the shared expert at a place as a file of this machine; one that had to be fetched is deleted afterwards.

    Args:
        place: a path, or ``hf://owner/name[@revision][/file]``.
        progress: called with the bytes that came, of how many.

    Raises:
        FileError: there is no such file.
        CheckpointError: a folder or repository has no shared expert, or several.
        FetchError: the hub cannot be used.
    """
    if place.startswith(HUB):
        with TemporaryDirectory(prefix="loradex-expert-") as folder:
            yield download(place, Path(folder), progress)
    elif is_remote(place):
        raise CheckpointError(f"{place}: expected a path or hf://owner/name, found another address; download the file")
    elif (path := Path(place)).is_dir():
        yield file_in(path)
    else:
        yield path


def file_in(folder: Path) -> Path:
    """The only shared expert in a folder.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    files = list(islice(sorted(folder.glob(f"*{SUFFIX}")), MAX_CANDIDATES))
    return folder / only_one(str(folder), [file.name for file in files], lambda name: Header.read(folder / name))


def download(address: str, folder: Path, progress: ProgressCallback) -> Path:
    """Fetch a shared expert from a repository into a folder.

    Raises:
        FetchError: the address is malformed, or the hub cannot be used.
        CheckpointError: the repository has no shared expert, or several.
        FileError: the file is no sound safetensors file.
    """
    parsed = ADDRESS.fullmatch(address)
    repository = HubRepository.open(parsed[1] if parsed else address)
    by_name = {file.name: file for file in repository.files}
    name = parsed[2] if parsed and parsed[2] else only_in(repository, by_name)
    if name not in by_name:
        raise FetchError(
            f"{repository.address}: expected a file {ascii(name)[:200]}, found {len(by_name)} others; check how it is written"
        )
    reader = repository.header(by_name[name]).remote
    if reader.size > MAX_FILE_BYTES:
        raise CheckpointError(
            f"{by_name[name].path}: expected at most {MAX_FILE_BYTES >> 20} MiB, found {reader.size >> 20}; do not use it"
        )
    target = folder / f"expert{SUFFIX}"
    try:
        with target.open("wb") as file:
            for start in range(0, reader.size, PART_BYTES):
                progress(start, reader.size, name)
                file.write(reader.read(start, min(start + PART_BYTES, reader.size)))
    except OSError as error:
        raise CheckpointError(
            f"{target}: expected room for {reader.size:,} bytes, found: {error}; set $TMPDIR"
        ) from None
    return target


def only_in(repository: HubRepository, files: dict[str, HubFile]) -> str:
    """The name of the only shared expert of a repository.

    Raises:
        CheckpointError: there is none, or there are several, or too many files to look at.
        FetchError: the hub cannot be used.
    """
    if len(files) > MAX_REMOTE_CANDIDATES:
        raise CheckpointError(
            f"{repository.address}: expected at most {MAX_REMOTE_CANDIDATES} {SUFFIX} files to choose from, found {len(files)}; "
            f"name one: {repository.address}/FILE"
        )
    return only_one(repository.address, list(files), lambda name: repository.header(files[name]))


def only_one(place: str, names: Sequence[str], header: Callable[[str], Header]) -> str:
    """The only one of some files whose header is that of a shared expert.

    Raises:
        CheckpointError: there is none, or there are several.
    """
    found = []
    for name in names:
        try:
            if header(name).metadata.get("format") == FORMAT:
                found.append(name)
        except FileError:
            continue
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            f"{place}: expected a shared expert, found none among {len(names)} {SUFFIX} files; {EXPORT}"
        )
    raise CheckpointError(
        f"{place}: expected one shared expert, found {', '.join(ascii(name)[1:-1][:60] for name in found[:5])}; name one of them"
    )
