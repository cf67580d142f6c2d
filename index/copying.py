"""Copies of a zoo from one store to another."""

import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from loradex.index.base import PREVIEWS, BaseZoo, Progress, no_progress
from loradex.index.disk import typed_errors
from loradex.index.errors import ZooExists
from loradex.index.model import Model
from loradex.index.opening import UNFINISHED, AnyZoo, check_finished, zoo_class
from loradex.index.sqlite.zoo import Zoo

BATCH: Final = 1024  # models


def copy_zoo(source: AnyZoo, folder: Path, progress: Progress = no_progress) -> int:
    """Copy a zoo to a folder that holds none yet; return its number of models.

    The next call continues a copy that was interrupted. A copy from SQLite to SQLite is of one committed state;
    otherwise each batch is.

    Raises:
        ZooExists: there is a zoo in the folder, or an unfinished copy of another zoo.
        ZooError: one of the zoos cannot be read or written.
    """
    source_name = str(source.folder.absolute())
    continues = is_unfinished_copy(folder, source_name)
    if isinstance(source, Zoo) and zoo_class(folder) is Zoo:
        check_finished(folder)
        source.copy_to(folder)
        return len(source)
    total = len(source)
    with typed_errors(folder):
        if not continues and zoo_class(folder).exists(folder):
            raise ZooExists(f"{folder}: expected no zoo yet, found one; name a new place")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / UNFINISHED).write_text(source_name, "utf-8", "surrogatepass")
    with zoo_class(folder).open_or_create(folder, source.space, source.dim) as target:
        copied = copy_contents(source, target, total, progress)
        with typed_errors(folder):
            (folder / UNFINISHED).unlink()
    return copied


def copy_contents(source: BaseZoo, target: BaseZoo, total: int, progress: Progress) -> int:
    """Copy previews, models and files, and remove what the source no longer has; return the number of models.

    Raises:
        ZooError: one of the zoos cannot be read or written.
    """
    with typed_errors(target.folder):
        if (source.folder / PREVIEWS).is_dir():
            shutil.copytree(source.folder / PREVIEWS, target.folder / PREVIEWS, dirs_exist_ok=True)
    copied, copied_ids = 0, set[str]()
    for batch in batches(source.models()):
        ids = [model.id for model in batch]
        positions, files = source.positions_by_id(ids), source.files_by_model(ids)
        target.add(batch, [positions.get(id) for id in ids], source.fingerprints(ids))
        target.note_files([file for of_model in files.values() for file in of_model])
        copied_ids.update(ids)
        copied += len(batch)
        progress(copied, total)
    known_files = source.known_files()
    target.remove([model.id for model in target.models() if model.id not in copied_ids])
    target.note_files(
        [file for file in known_files.values() if file.model_id is None],
        forget=[path for path in target.known_files() if path not in known_files],
    )
    target.save_engine()
    return copied


def is_unfinished_copy(folder: Path, source_name: str) -> bool:
    """Whether a folder has an unfinished copy of a zoo.

    Raises:
        ZooExists: it has one of another zoo.
    """
    marker = folder / UNFINISHED
    with typed_errors(marker):
        if not marker.is_file():
            return False
        copied_name = marker.read_text("utf-8", "surrogatepass")
    if copied_name != source_name:
        raise ZooExists(
            f"{folder}: expected half a copy of {source_name}, found one of {copied_name[:200]}; finish that one, or use another place"
        )
    return True


def batches(models: Iterator[Model]) -> Iterator[list[Model]]:
    """Yield models in batches of ``BATCH``."""
    while batch := list(islice(models, BATCH)):
        yield batch
