"""A zoo copied from one engine to another, with all that it holds."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from loradex.index.errors import ZooExists
from loradex.index.model import Model
from loradex.index.opening import UNFINISHED, AnyZoo, kind_of, refuse_unfinished
from loradex.index.sqlite.connections import typed_errors
from loradex.index.sqlite.zoo import PREVIEWS, Zoo

BATCH: Final = 1024  # models
Progress = Callable[[int, int], None]


def copy_zoo(source: AnyZoo, folder: Path, progress: Progress = lambda done, total: None) -> int:
    """Copy a zoo to a place that holds none yet; return how many models it had. A copy that was cut off goes on when it is made again.

    Between folders the copy is of one committed state; else each batch is.

    Raises:
        ZooExists: there is a zoo.
        ZooError: one of them cannot be read or written.
    """
    if isinstance(source, Zoo) and kind_of(folder) is Zoo:
        begun_from(folder / UNFINISHED, str(source.folder.absolute()))
        refuse_unfinished(folder)
        source.copy_to(folder)
        return len(source)
    unfinished, mine, done, total, seen = folder / UNFINISHED, str(source.folder.absolute()), 0, len(source), set[str]()
    goes_on = begun_from(unfinished, mine)
    with typed_errors(folder):
        if not goes_on and kind_of(folder).there(folder):
            raise ZooExists(f"{folder}: expected no zoo yet, found one; name a new place")
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(mine, "utf-8", "surrogatepass")
    with kind_of(folder).open_or_create(folder, source.space, source.dim) as target:
        with typed_errors(folder):
            if (source.folder / PREVIEWS).is_dir():
                shutil.copytree(source.folder / PREVIEWS, folder / PREVIEWS, dirs_exist_ok=True)
        for batch in batches(source.models()):
            ids = [model.id for model in batch]
            vectors, files = source.vectors_of(ids), source.files_of(ids)
            target.add(batch, [vectors.get(id) for id in ids], source.fingerprints(ids))
            target.note_files([file for some in files.values() for file in some])
            seen.update(ids)
            done += len(batch)
            progress(done, total)
        known = source.known_files()
        target.remove(
            [model.id for model in target.models() if model.id not in seen]
        )  # that the source lost since the copy was begun
        target.note_files(
            [file for file in known.values() if file.model_id is None],
            [path for path in target.known_files() if path not in known],
        )
        target.save_engine()
        with typed_errors(folder):
            unfinished.unlink()
    return done


def begun_from(unfinished: Path, source: str) -> bool:
    """Whether a copy of a zoo was begun and cut off.

    Raises:
        ZooExists: it was one of another zoo.
    """
    with typed_errors(unfinished):
        if not unfinished.is_file():
            return False
        begun = unfinished.read_text("utf-8", "surrogatepass")
    if begun != source:
        raise ZooExists(
            f"{unfinished.parent}: expected half a copy of {source}, found one of {begun[:200]}; finish that one, or use another place"
        )
    return True


def batches(models: Iterator[Model]) -> Iterator[list[Model]]:
    """Models, some at a time."""
    batch: list[Model] = []
    for model in models:
        batch.append(model)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
