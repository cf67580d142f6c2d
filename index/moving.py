"""A zoo copied from one engine to another, with all that it holds."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from index.connections import typed_errors
from index.model import Model
from index.places import UNFINISHED, AnyZoo, kind_of, refuse_unfinished
from index.zoo import PREVIEWS, Zoo

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
        refuse_unfinished(folder)
        source.copy_to(folder)
        return len(source)
    unfinished, done, total = folder / UNFINISHED, 0, len(source)
    goes_on = unfinished.is_file()
    with kind_of(folder).open_or_create(folder, source.space, source.dim) if goes_on else kind_of(folder).create(folder, source.space, source.dim) as target:
        with typed_errors(folder):
            unfinished.touch()
            if (source.folder / PREVIEWS).is_dir():
                shutil.copytree(source.folder / PREVIEWS, folder / PREVIEWS, dirs_exist_ok=True)
        for batch in batches(source.models()):
            ids = [model.id for model in batch]
            vectors, files = source.vectors_of(ids), source.files_of(ids)
            target.add(batch, [vectors.get(id) for id in ids], source.fingerprints(ids))
            target.note_files([file for some in files.values() for file in some])
            done += len(batch)
            progress(done, total)
        target.note_files([file for file in source.known_files().values() if file.model_id is None])
        target.save_engine()
        with typed_errors(folder):
            unfinished.unlink()
    return done


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
