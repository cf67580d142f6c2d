"""What a repository of a hub holds at one commit; nothing that the server says is taken on trust."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final, TypeVar

from huggingface_hub import HfApi
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from loradex.retrieval.errors import FetchError
from loradex.retrieval.lora.peft_config import CONFIG
from loradex.retrieval.lora.problems import shown
from loradex.retrieval.remote.ranges import HTTP_ERRORS, TIMEOUT

HUB_ERRORS: Final[tuple[type[Exception], ...]] = (
    *HTTP_ERRORS,
    ValueError,
)  # of huggingface_hub; the last for ids and names that it refuses
MALFORMED: Final[tuple[type[Exception], ...]] = (
    KeyError,
    TypeError,
    AttributeError,
)  # what it ends in where an answer lacks something
MOST_ENTRIES: Final = 1_000_000  # of a listing, pictures and folders too
LONGEST_NAME: Final = 1000  # characters
COMMIT: Final = re.compile(r"[0-9a-f]{40}")
File = TypeVar("File")


def commit_of(api: HfApi, repository: str, revision: str | None = None, kind: str | None = None) -> str:
    """The commit that a branch, a tag or another name of a commit stands for; of the newest where there is none. ``kind`` may be ``dataset``.

    Raises:
        FetchError: there is no such repository or revision, or the server cannot be used.
    """
    where = f"{api.endpoint}/{repository}"
    try:
        found = api.repo_info(repository, revision=revision, timeout=TIMEOUT, repo_type=kind).sha
    except RepositoryNotFoundError:
        raise FetchError(
            f"{where}: expected a repository of models, found none that may be read; check its name, and HF_TOKEN if it is private"
        ) from None
    except RevisionNotFoundError:
        raise FetchError(
            f"{where}: expected a revision {shown(revision or 'main')!r}, found none; name a branch, a tag or a commit"
        ) from None
    except (*HUB_ERRORS, *MALFORMED) as error:
        raise unlisted(where, error) from None
    if (
        not isinstance(found, str)
        or not COMMIT.fullmatch(found)
        or (revision and COMMIT.fullmatch(revision) and found != revision)
    ):
        asked = revision if revision and COMMIT.fullmatch(revision) else "of 40 hexadecimal digits"
        raise FetchError(f"{where}: expected a commit {asked}, found {ascii(found)[:80]}; do not use this server")
    return found


def files_of(
    api: HfApi, repository: str, commit: str, folder: str | None = None, kind: str | None = None
) -> Iterator[RepoFile]:
    """The files of a repository, or of one of its folders, in the order of the hub; nothing where the folder is missing.

    Raises:
        FetchError: they cannot be listed, are too many, or are listed without a sound name and size.
    """
    where = f"{api.endpoint}/{repository}"
    try:
        for number, entry in enumerate(
            api.list_repo_tree(repository, folder, recursive=True, revision=commit, repo_type=kind)
        ):
            if number >= MOST_ENTRIES:
                raise FetchError(f"{where}: expected at most {MOST_ENTRIES} files, found more; do not use this server")
            if isinstance(entry, RepoFile):
                if not isinstance(entry.path, str) or type(entry.size) is not int or not 0 <= entry.size < 2**63:
                    raise FetchError(
                        f"{where}: expected a name and a size of each file, found {ascii((entry.path, entry.size))[:200]}; do not use this server"
                    )
                yield entry
    except EntryNotFoundError:
        return
    except (*HUB_ERRORS, *MALFORMED) as error:
        raise unlisted(where, error) from None


def refuse_escapes(name: str) -> None:
    """Refuse a listed name that could lead out of the folder that it is put into, or that no one could read.

    Raises:
        FetchError: it could, or is too long or not printable.
    """
    if name.startswith("/") or "\\" in name or ":" in name or "\0" in name or {"..", "."} & set(name.split("/")):
        raise FetchError(
            f"{ascii(name)[:200]}: expected a path inside the repository, found one that leads out of it; do not use this server"
        )
    refuse_unreadable(name)


def refuse_unreadable(name: str) -> None:
    """Refuse a listed name that no one could read.

    Raises:
        FetchError: it is too long or not printable.
    """
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise FetchError(
            f"{ascii(name)[:200]}: expected a name of at most {LONGEST_NAME} printable characters, found {len(name)}; have it renamed"
        )


def unlisted(where: str, error: Exception) -> FetchError:
    """What to say of an error that ended a listing."""
    return FetchError(f"{where}: cannot be listed: {brief_of(error)}; check the connection, the revision and HF_TOKEN")


def brief_of(error: BaseException) -> str:
    """The first line of an error that is not ours."""
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0])


def beside(name: str, settings: Mapping[str, File]) -> dict[str, File]:
    """PEFT's settings in the folder of a listed file, by their path, if there are some."""
    path = str(PurePosixPath(name).with_name(CONFIG))
    return {path: settings[path]} if path in settings else {}
