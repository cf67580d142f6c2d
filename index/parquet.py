"""A zoo as one Parquet file, for other programs and for moving it, and back.

A row for each model, in order of id; ``vector`` has the zoo's dim, or is missing; ``preview_image`` holds the bytes of its drawing. The space,
the dim and the version of this layout are in the file's metadata under ``loradex``. Text that is no valid UTF-8 is written with question marks,
and as it is under ``exact``.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loradex.index.copying import BATCH, batches
from loradex.index.errors import BadModel, BadQuery, BadVector, SpaceMismatch
from loradex.index.model import FoundBy, KnownFile, Model
from loradex.index.opening import AnyZoo, open_or_create_zoo
from loradex.index.sqlite.connections import sync, sync_folder, typed_errors
from loradex.index.sqlite.zoo import PREVIEWS

VERSION: Final = 1
LARGEST_PREVIEW: Final = 2**20  # bytes
TEXTS: Final = ("id", "name", "family", "found_by", "path", "concept", "preview")
FOREIGN: Final = (
    pa.ArrowException,
    OSError,
    UnicodeError,
)  # how reading what is no sound Parquet ends; with an errno, it was the disk
Progress = Callable[[int, int], None]


def layout(space: str, dim: int) -> pa.Schema:
    """The columns of the file."""
    file = pa.struct([("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("reader", pa.string())])
    columns = [
        *((name, pa.string()) for name in (*TEXTS, "facts")),
        ("added", pa.int64()),
        ("vector", pa.list_(pa.float32(), dim)),
    ]
    columns += [
        ("fingerprint", pa.binary()),
        ("preview_image", pa.binary()),
        ("files", pa.list_(file)),
        ("exact", pa.string()),
    ]
    return pa.schema(columns, {"loradex": json.dumps({"version": VERSION, "space": space, "dim": dim})})


def export_zoo(zoo: AnyZoo, path: Path, progress: Progress = lambda done, total: None) -> int:
    """Write all models to a file, in one step; return how many.

    Raises:
        DiskRefused: the file cannot be written.
        ZooDamaged: the zoo cannot be read.
    """
    part, done, total = path.with_name(f".{path.name}.part"), 0, len(zoo)
    with typed_errors(path):
        with part.open("wb") as sink:
            with pq.ParquetWriter(sink, layout(zoo.space, zoo.dim), compression="zstd") as writer:
                for batch in batches(zoo.models()):
                    writer.write_table(table_of(zoo, batch))
                    done += len(batch)
                    progress(done, total)
            sync(sink)
        part.replace(path)
        sync_folder(path.absolute().parent)
    return done


def table_of(zoo: AnyZoo, models: Sequence[Model]) -> pa.Table:
    """Some models as rows."""
    ids = [model.id for model in models]
    vectors, prints, files = zoo.vectors_of(ids), zoo.fingerprints(ids), zoo.files_of(ids)
    rows = []
    for model in models:
        texts = {name: getattr(model, name) for name in TEXTS} | {"found_by": str(model.found_by)}
        known = [
            {"path": file.path, "size": file.size, "mtime_ns": file.mtime_ns, "reader": file.reader}
            for file in files.get(model.id, [])
        ]
        clean = {name: valid(text) for name, text in texts.items()}
        seen = [file | {"path": valid(str(file["path"]))} for file in known]
        exact = (
            None
            if (clean, seen) == (texts, known)
            else json.dumps({"texts": texts, "files": [file["path"] for file in known]})
        )
        vector = vectors.get(model.id)
        rows.append(
            clean
            | {
                "facts": json.dumps(model.facts),
                "added": model.added,
                "vector": None if vector is None else vector.tolist(),
                "exact": exact,
            }
            | {
                "fingerprint": prints.get(model.id),
                "preview_image": preview_of(zoo.folder, model.preview),
                "files": seen,
            }
        )
    return pa.Table.from_pylist(rows, layout(zoo.space, zoo.dim))


def valid(text: str | None) -> str | None:
    """A text with question marks for what is not Unicode."""
    return None if text is None else text.encode(errors="replace").decode()


def preview_of(folder: Path, preview: str | None) -> bytes | None:
    """The bytes of a drawing, if it is there; what lies outside of the zoo is none."""
    path = folder / (preview or "")
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
        return path.read_bytes() if inside and path.stat().st_size <= LARGEST_PREVIEW else None
    except (OSError, ValueError):
        return None


def import_zoo(path: Path, folder: Path, progress: Progress = lambda done, total: None) -> int:
    """Add the models of a file to a zoo, which is made if there is none; return how many.

    Raises:
        SpaceMismatch: the zoo is bound to another space.
        BadModel, BadVector: the file is no zoo, or holds what a zoo does not take; batches before it are in.
        ZooError: the zoo cannot be written.
    """
    file = opened(path)
    try:
        said = json.loads((file.schema_arrow.metadata or {})[b"loradex"])
        space, dim = str(said["space"]), int(said["dim"])
        same = said["version"] == VERSION and file.schema_arrow.equals(layout(space, dim))
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        same = False
    if not same:
        raise BadModel(
            f"{path}: expected a zoo of layout {VERSION} in Parquet, found other columns; export it with `loradex zoo export`"
        )
    done, total = 0, file.metadata.num_rows
    with open_or_create_zoo(folder, space, dim) as zoo:
        if (zoo.space, zoo.dim) != (space, dim):
            raise SpaceMismatch(f"{path}: expected space {zoo.space!r}, found {space!r}; import it into a new zoo")
        for batch in read_batches(file, path):
            add_rows(zoo, batch, path)
            done += len(batch)
            progress(done, total)
        zoo.save_engine()
    return done


def opened(path: Path) -> pq.ParquetFile:
    """A Parquet file.

    Raises:
        BadModel: it is none.
        DiskRefused: it cannot be read.
    """
    with typed_errors(path):
        try:
            return pq.ParquetFile(path)
        except FOREIGN as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise BadModel(f"{path}: expected a Parquet file, found: {first_line(error)}; export it again") from None


def read_batches(file: pq.ParquetFile, path: Path) -> Iterator[list[dict[str, Any]]]:
    """The rows of a file, some at a time.

    Raises:
        BadModel: they cannot be read.
    """
    with typed_errors(path):
        try:
            for batch in file.iter_batches(BATCH):
                yield batch.to_pylist()
        except FOREIGN as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise BadModel(f"{path}: expected sound rows, found: {first_line(error)}; export it again") from None


def first_line(error: Exception) -> str:
    """The first line of an error of Arrow."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def known_file(path: object, file: dict[str, Any], id: str) -> KnownFile:
    """One of a model's files.

    Raises:
        TypeError, KeyError: it is none.
    """
    kinds = [type(value) for value in (path, file["size"], file["mtime_ns"], file["reader"])]
    if kinds != [str, int, int, str]:
        raise TypeError(f"a file of {', '.join(kind.__name__ for kind in kinds)}")
    return KnownFile(str(path), file["size"], file["mtime_ns"], id, None, file["reader"])


def add_rows(zoo: AnyZoo, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Add rows of a file, all at once.

    Raises:
        BadModel, BadVector: a row cannot be stored; none is.
    """
    models, vectors, files, prints, drawings = [], [], [], {}, {}
    for row in rows:
        try:
            seen = row["files"] or []
            texts, paths = {name: row[name] for name in TEXTS}, [file["path"] for file in seen]
            if row["exact"]:
                exact = json.loads(row["exact"])
                texts, paths = exact["texts"], exact["files"]
            facts = json.loads(row["facts"])
            vectors.append(None if row["vector"] is None else np.array(row["vector"], np.float32))
            preview = f"{PREVIEWS}/{texts['id']}.png" if row["preview_image"] and str(texts["id"]).isalnum() else None
            texts = {name: texts[name] for name in TEXTS} | {"found_by": FoundBy(texts["found_by"]), "preview": preview}
            known = [known_file(where, file, texts["id"]) for where, file in zip(paths, seen, strict=True)]
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise BadModel(f"{path}: expected a model in each row, found: {error}; export it again") from None
        models.append(Model(**texts, facts=facts, added=row["added"]))
        files += known
        if row["fingerprint"] is not None:
            prints[models[-1].id] = row["fingerprint"]
        if preview and len(row["preview_image"]) <= LARGEST_PREVIEW:
            drawings[preview] = row["preview_image"]
    with typed_errors(zoo.folder):
        for name, data in drawings.items():
            (zoo.folder / name).parent.mkdir(exist_ok=True)
            (zoo.folder / name).write_bytes(data)
    try:
        zoo.add(models, vectors, prints)
        zoo.note_files(files)
    except (BadModel, BadVector, BadQuery) as error:
        raise type(error)(f"{path}: {error}") from None
