"""The files of a repository of a hub at one commit; nothing that the server sends is trusted."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from loradex.retrieval.errors import FetchError
from loradex.retrieval.lora.peft_config import CONFIG_NAME
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.remote.ranges import HTTP_ERRORS, TIMEOUT

# of huggingface_hub; ValueError for ids and names that it refuses
HUB_ERRORS: Final[tuple[type[Exception], ...]] = (*HTTP_ERRORS, ValueError)
# of huggingface_hub, if an answer lacks a field or has another type
MALFORMED_ERRORS: Final[tuple[type[Exception], ...]] = (KeyError, TypeError, AttributeError)
MAX_ENTRIES: Final = 1_000_000  # of a listing: files of any kind and folders
MAX_NAME_LENGTH: Final = 1000  # characters
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
FileT = TypeVar("FileT")


def resolve_commit(api: HfApi, repository: str, revision: str | None = None, kind: str | None = None) -> str:
    """Resolve a revision to its commit.

    Args:
        api: of the hub.
        repository: owner and name.
        revision: a branch, a tag or a commit; the main branch if None.
        kind: ``dataset``, or None for a repository of models.

    Raises:
        FetchError: there is no such repository or revision, or the server cannot be used.
    """
    where = f"{api.endpoint}/{repository}"
    try:
        commit = api.repo_info(repository, revision=revision, timeout=TIMEOUT, repo_type=kind).sha
    except RepositoryNotFoundError:
        raise FetchError(
            f"{where}: expected a repository of models, found none that may be read; check its name, and HF_TOKEN if it is private"
        ) from None
    except RevisionNotFoundError:
        raise FetchError(
            f"{where}: expected a revision {printable(revision or 'main')!r}, found none; name a branch, a tag or a commit"
        ) from None
    except (*HUB_ERRORS, *MALFORMED_ERRORS) as error:
        raise listing_error(where, error) from None
    pinned = revision if revision and COMMIT.fullmatch(revision) else None
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit) or (pinned and commit != pinned):
        expected = pinned or "of 40 hexadecimal digits"
        raise FetchError(f"{where}: expected a commit {expected}, found {ascii(commit)[:80]}; do not use this server")
    return commit


def list_files(
    api: HfApi, repository: str, commit: str, folder: str | None = None, kind: str | None = None
) -> Iterator[RepoFile]:
    """List the files of a repository, or of one of its folders, in the order of the hub.

    Raises:
        FetchError: they cannot be listed, are too many, or have no valid name and size.
    """
    where = f"{api.endpoint}/{repository}"
    try:
        for number, entry in enumerate(
            api.list_repo_tree(repository, folder, recursive=True, revision=commit, repo_type=kind)
        ):
            if number >= MAX_ENTRIES:
                raise FetchError(f"{where}: expected at most {MAX_ENTRIES} files, found more; do not use this server")
            if isinstance(entry, RepoFile):
                if not isinstance(entry.path, str) or type(entry.size) is not int or not 0 <= entry.size < 2**63:
                    raise FetchError(
                        f"{where}: expected a name and a size of each file, found {ascii((entry.path, entry.size))[:200]}; do not use this server"
                    )
                yield entry
    except EntryNotFoundError:
        return
    except (*HUB_ERRORS, *MALFORMED_ERRORS) as error:
        raise listing_error(where, error) from None


def refuse_unsafe_path(path: str) -> None:
    """Refuse a listed path that could lead out of the folder that it is downloaded into, or that cannot be shown.

    Raises:
        FetchError: it could, is too long, or is not printable.
    """
    if path.startswith("/") or "\\" in path or ":" in path or "\0" in path or {"..", "."} & set(path.split("/")):
        raise FetchError(
            f"{ascii(path)[:200]}: expected a path inside the repository, found one that leads out of it; do not use this server"
        )
    refuse_unprintable_path(path)


def refuse_unprintable_path(path: str) -> None:
    """Refuse a listed path that cannot be shown.

    Raises:
        FetchError: it is too long or not printable.
    """
    if len(path) > MAX_NAME_LENGTH or not path.isprintable():
        raise FetchError(
            f"{ascii(path)[:200]}: expected a name of at most {MAX_NAME_LENGTH} printable characters, found {len(path)}; have it renamed"
        )


def listing_error(where: str, error: Exception) -> FetchError:
    """The error for a listing that failed."""
    return FetchError(
        f"{where}: cannot be listed: {first_line(error)}; check the connection, the revision and HF_TOKEN"
    )


def first_line(error: BaseException) -> str:
    """The first line of an error of another library, or the name of its class."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


def config_beside(path: str, configs: Mapping[str, FileT]) -> dict[str, FileT]:
    """PEFT's config in the folder of a listed file, by its path; empty if there is none."""
    config_path = str(PurePosixPath(path).with_name(CONFIG_NAME))
    return {config_path: configs[config_path]} if config_path in configs else {}
