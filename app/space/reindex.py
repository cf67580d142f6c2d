"""``loradex space reindex``: makes a zoo of another space again, from its files, in the space in use.

The new zoo grows beside the old one and takes its place at the end, by two renames; the old one is kept beside it. A
run that was stopped goes on with the files that it had not read.
"""

import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.reading_engines import ReadingEngine
from loradex.app.paths import SHIPPED_ZOO
from loradex.app.reporting import ProgressCallback
from loradex.app.words import WordsService
from loradex.index import AnyZoo, open_zoo
from loradex.index.base import PREVIEWS
from loradex.index.disk import typed_errors
from loradex.index.errors import ZooError
from loradex.index.opening import zoo_class
from loradex.index.sqlite.zoo import Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileMissing
from loradex.retrieval.remote import is_remote

DONE: Final = "reindexed"  # file in a new zoo that may take the place of the old one
NOT_IN_NAMES: Final = re.compile(r"[^\w.-]")  # of folders, while a space may have any name
COMMIT: Final = re.compile(r"(hf://.+?@[0-9a-f]{40})/")  # in the address of a file of a repository


@dataclass(frozen=True, slots=True)
class ReindexAnswer:
    """What became of a zoo.

    Attributes:
        zoo: its folder.
        space: of its vectors now.
        old_space: of its vectors before.
        old_zoo: where the zoo as it was lies now; None if nothing had to be done.
        models: how many it has now.
        missing: known files that are gone.
        lost: names of models that the old zoo has and the new one lacks, as none of their files could be read.
        indexed: how the files were read; None if nothing had to be done.
    """

    zoo: str
    space: str
    old_space: str
    old_zoo: str | None = None
    models: int = 0
    missing: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    indexed: IndexAnswer | None = None

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex space reindex --json``."""
        keys = ("zoo", "space", "old_space", "old_zoo", "models", "missing", "lost")
        indexed = self.indexed.document() if self.indexed else None
        return {key: getattr(self, key) for key in keys} | {"indexed": indexed}


def reindex_zoo(
    zoo: Path,
    encoder: Encoder,
    progress: ProgressCallback = lambda done, total, file: None,
    engine: ReadingEngine | None = None,
    words: WordsService | None = None,
) -> ReindexAnswer:
    """Make a zoo again in the space of an encoder; nothing is done if it is of that space.

    Args:
        zoo: its folder.
        encoder: the experts, and the space of the new zoo.
        progress: called after each file.
        engine: reads the files; by default threads of this machine.
        words: reads the words that files were trained with; without it the new zoo has none.

    Raises:
        FileMissing: no file of the zoo is there any more.
        FetchError: its files are all remote, and none can be listed.
        ZooError: a zoo cannot be read, written or moved.
    """
    new = zoo.with_name(f"{zoo.name}.reindexed")
    if not zoo.exists() and (new / DONE).is_file():
        new.rename(zoo)  # a run was stopped between its two renames
    if zoo == SHIPPED_ZOO or zoo_class(zoo) is not Zoo:
        raise ZooError(
            f"{zoo}: expected a zoo of your own in a folder, found another; index its files into a new place with `loradex index`"
        )
    with open_zoo(zoo) as old:  # opened for writing, so that nothing is added to it meanwhile
        old_space = old.space
        if old_space == encoder.space.name:
            return ReindexAnswer(str(zoo), old_space, old_space, models=len(old))
        known = old.known_files()
        missing = [path for path in known if not is_remote(path) and not Path(path).is_file()]
        gone = set(missing)
        places = [path for path in known if not is_remote(path) and path not in gone] + remote_places(known)
        if not places:
            raise FileMissing(
                f"{zoo}: expected its files at their known places, found none of {len(known)}; connect the drive that holds them"
            )
        remove_other_space(new, encoder.space.name)
        if (zoo / PREVIEWS).is_dir():  # drawings are kept; pictures beside files are read again
            shutil.copytree(zoo / PREVIEWS, new / PREVIEWS, dirs_exist_ok=True)
        old_zoo = free_name(zoo.with_name(f"{zoo.name}.{NOT_IN_NAMES.sub('_', old_space)[:80]}"))
        added = {model.id: model.added for model in old.models() if model.added is not None}
        answer = index_places(places, new, encoder, progress, engine=engine, added=added, words=words)
        lost, models = compare(old, new)
        (new / DONE).touch()
    with typed_errors(zoo):
        zoo.rename(old_zoo)
        try:
            new.rename(zoo)
        except OSError:
            old_zoo.rename(zoo)
            raise
        (zoo / DONE).unlink(missing_ok=True)
    answer.zoo = str(zoo)
    return ReindexAnswer(str(zoo), encoder.space.name, old_space, str(old_zoo), models, missing, lost, answer)


def remote_places(paths: Iterable[str]) -> list[str]:
    """The folders that remote files lie in: a repository at its commit, or a folder of a store, none inside another."""
    found = set[str]()
    for path in filter(is_remote, paths):
        in_repository = COMMIT.match(path)
        scheme, _, rest = path.partition("://")
        found.add(in_repository[1] if in_repository else f"{scheme}://{PurePosixPath(rest).parent}")
    return [place for place in sorted(found) if not any(place.startswith(f"{other}/") for other in found)]


def remove_other_space(new: Path, space: str) -> None:
    """Remove what an earlier run made for yet another space, or could not finish creating."""
    if new.exists():
        if zoo_class(new).exists(new):
            with open_zoo(new, read_only=True) as begun:
                keep = begun.space == space
        else:
            keep = False
        if not keep:
            shutil.rmtree(new)


def compare(old: AnyZoo, new_folder: Path) -> tuple[list[str], int]:
    """The names of models that the new zoo lacks, and its number of models."""
    with open_zoo(new_folder, read_only=True) as new:
        return sorted(model.name for model in old.models() if not new.has(model.id)), len(new)


def free_name(folder: Path) -> Path:
    """The folder, or the first name with a number that nothing has yet."""
    number, free = 1, folder
    while free.exists():
        number, free = number + 1, folder.with_name(f"{folder.name}.{number + 1}")
    return free
