"""Export of a zoo to one Parquet file, for other programs and as a backup, and its import.

The file has one row per model, in order of id. Each kind of evidence that gives a position, here ``picture``, has three
columns: ``picture_vector``, a unit vector of the zoo's dim, ``picture_scale`` and ``picture_bias``, all null in a model
without that position. ``found_by`` is the weightiest kind, for readers; an import goes by the positions.
``preview_image`` has the bytes of the preview. The metadata key ``loradex`` has the version of this layout, the space
and the dim. Text that is not valid UTF-8 is written with question marks, and unchanged in ``exact``.

Version 1 had one ``vector``, which was that of a picture, and neither names nor facts of files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loradex.index.base import PREVIEWS, BaseZoo, Progress, no_progress
from loradex.index.copying import BATCH, batches
from loradex.index.disk import sync, sync_folder, typed_errors
from loradex.index.errors import BadModel, BadQuery, BadVector, SpaceMismatch
from loradex.index.evidence import PLACED, Evidence, Position, Positions
from loradex.index.model import KnownFile, Model
from loradex.index.opening import open_or_create_zoo

VERSION: Final = 2
LARGEST_PREVIEW: Final = 2**20  # bytes
TEXTS: Final = ("id", "name", "family", "path", "concept", "preview")
READ_ERRORS: Final = (pa.ArrowException, OSError, UnicodeError)  # of a damaged file; with an errno, of the disk

Row = dict[str, Any]


def layout(space: str, dim: int, version: int = VERSION) -> pa.Schema:
    """Return the schema of the file."""
    file = [("path", pa.string()), ("size", pa.int64()), ("mtime_ns", pa.int64()), ("reader", pa.string())]
    vector = pa.list_(pa.float32(), dim)
    if version == 1:
        positions = [("vector", vector)]
    else:
        file += [("name", pa.string()), ("facts", pa.string())]
        positions = [
            column
            for kind in PLACED
            for column in ((f"{kind}_vector", vector), (f"{kind}_scale", pa.float64()), (f"{kind}_bias", pa.float64()))
        ]
    columns = [
        *((name, pa.string()) for name in (*TEXTS[:3], "found_by", *TEXTS[3:], "facts")),
        ("added", pa.int64()),
        *positions,
        ("fingerprint", pa.binary()),
        ("preview_image", pa.binary()),
        ("files", pa.list_(pa.struct(file))),
        ("exact", pa.string()),
    ]
    return pa.schema(columns, {"loradex": json.dumps({"version": version, "space": space, "dim": dim})})


def export_zoo(zoo: BaseZoo, path: Path, progress: Progress = no_progress) -> int:
    """Write all models to a file, which appears when it is complete; return their number.

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


def table_of(zoo: BaseZoo, models: Sequence[Model]) -> pa.Table:
    """Return a table with a row for each model."""
    ids = [model.id for model in models]
    positions, fingerprints, files = zoo.positions_by_id(ids), zoo.fingerprints(ids), zoo.files_by_model(ids)
    rows = [
        text_columns(model, files.get(model.id, []))
        | position_columns(positions.get(model.id, {}))
        | {
            "found_by": str(model.found_by),
            "facts": json.dumps(model.facts),
            "added": model.added,
            "fingerprint": fingerprints.get(model.id),
            "preview_image": preview_image(zoo.folder, model.preview),
        }
        for model in models
    ]
    return pa.Table.from_pylist(rows, layout(zoo.space, zoo.dim))


def position_columns(positions: Positions) -> Row:
    """Return the columns of a model's positions."""
    columns: Row = {}
    for kind, position in positions.items():
        columns |= {
            f"{kind}_vector": position.vector.tolist(),
            f"{kind}_scale": position.scale,
            f"{kind}_bias": position.bias,
        }
    return columns


def text_columns(model: Model, files: Sequence[KnownFile]) -> Row:
    """Return the columns that may have invalid text: those of ``TEXTS``, ``files`` and ``exact``."""
    texts = {name: getattr(model, name) for name in TEXTS}
    file_texts = [{"path": file.path, "name": file.name} for file in files]
    valid_texts = {name: valid_text(text) for name, text in texts.items()}
    valid_file_texts = [{key: valid_text(text) for key, text in each.items()} for each in file_texts]
    is_valid = (valid_texts, valid_file_texts) == (texts, file_texts)
    return valid_texts | {
        "files": [
            valid
            | {"size": file.size, "mtime_ns": file.mtime_ns, "reader": file.reader, "facts": json.dumps(file.facts)}
            for valid, file in zip(valid_file_texts, files, strict=True)
        ],
        "exact": None if is_valid else json.dumps({"texts": texts, "files": file_texts}),
    }


def valid_text(text: str | None) -> str | None:
    """Return a text with question marks for what is not valid Unicode."""
    return None if text is None else text.encode(errors="replace").decode()


def preview_image(folder: Path, preview: str | None) -> bytes | None:
    """Return the bytes of a preview, or None if there is none, it is too large, or lies outside of the zoo's folder."""
    path = folder / (preview or "")
    try:
        inside = path.resolve().is_relative_to(folder.resolve()) and path.is_file()
        return path.read_bytes() if inside and path.stat().st_size <= LARGEST_PREVIEW else None
    except (OSError, ValueError):
        return None


def import_zoo(path: Path, folder: Path, progress: Progress = no_progress) -> int:
    """Add the models of a file to a zoo, which is created if there is none; return their number.

    Raises:
        SpaceMismatch: the zoo is bound to another space.
        BadModel, BadVector: the file is not a zoo, or has a model that cannot be stored; the batches before it are
            added.
        ZooError: the zoo cannot be written.
    """
    file = open_parquet(path)
    space, dim = read_binding(file, path)
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


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a Parquet file.

    Raises:
        BadModel: it is not one.
        DiskRefused: it cannot be read.
    """
    with typed_errors(path):
        try:
            return pq.ParquetFile(path)
        except READ_ERRORS as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise BadModel(f"{path}: expected a Parquet file, found: {first_line(error)}; export it again") from None


def read_binding(file: pq.ParquetFile, path: Path) -> tuple[str, int]:
    """Return the space and dim of an exported zoo.

    Raises:
        BadModel: the file has another layout.
    """
    try:
        metadata = json.loads((file.schema_arrow.metadata or {})[b"loradex"])
        version, space, dim = metadata["version"], str(metadata["space"]), int(metadata["dim"])
        if version in (1, VERSION) and file.schema_arrow.equals(layout(space, dim, version)):
            return space, dim
    except (KeyError, ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise BadModel(
        f"{path}: expected a zoo of layout 1 or {VERSION} in Parquet, found other columns; export it with `loradex zoo export`"
    )


def read_batches(file: pq.ParquetFile, path: Path) -> Iterator[list[Row]]:
    """Yield the rows of a file in batches.

    Raises:
        BadModel: they cannot be read.
    """
    with typed_errors(path):
        try:
            for batch in file.iter_batches(BATCH):
                yield batch.to_pylist()
        except READ_ERRORS as error:
            if getattr(error, "errno", None) is not None:
                raise
            raise BadModel(f"{path}: expected sound rows, found: {first_line(error)}; export it again") from None


def first_line(error: Exception) -> str:
    """Return the first line of an error message of Arrow."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def add_rows(zoo: BaseZoo, rows: Sequence[Row], path: Path) -> None:
    """Add the models of some rows with their files and previews.

    Raises:
        BadModel, BadVector: a row cannot be stored; no model of the rows is added.
    """
    models, positions, files = list[Model](), list[Positions](), list[KnownFile]()
    fingerprints, previews = dict[str, bytes](), dict[str, bytes]()
    for row in rows:
        try:
            model, model_files = model_of_row(row)
            positions.append(positions_of_row(row))
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise BadModel(f"{path}: expected a model in each row, found: {error}; export it again") from None
        models.append(model)
        files += model_files
        if row["fingerprint"] is not None:
            fingerprints[model.id] = row["fingerprint"]
        if model.preview and len(row["preview_image"]) <= LARGEST_PREVIEW:
            previews[model.preview] = row["preview_image"]
    write_previews(zoo.folder, previews)
    try:
        zoo.add(models, positions, fingerprints)
        zoo.note_files(files)
    except (BadModel, BadVector, BadQuery) as error:
        raise type(error)(f"{path}: {error}") from None


def positions_of_row(row: Row) -> dict[Evidence, Position]:
    """Return the positions of a row, unchecked; one of version 1 has a picture's at most, scored by its cosine.

    Raises:
        KeyError, ValueError, TypeError: the row is not one of ``table_of``.
    """
    if "vector" in row:
        given = {Evidence.PICTURE: (row["vector"], 1.0, 0.0)}
    else:
        given = {kind: (row[f"{kind}_vector"], row[f"{kind}_scale"], row[f"{kind}_bias"]) for kind in PLACED}
    return {
        kind: Position(np.array(vector, np.float32), scale, bias)
        for kind, (vector, scale, bias) in given.items()
        if vector is not None
    }


def model_of_row(row: Row) -> tuple[Model, list[KnownFile]]:
    """Return the model of a row, and its files; with a preview if there is an image and the id is a safe file name.

    Raises:
        KeyError, ValueError, TypeError, RecursionError: the row is not one of ``table_of``.
    """
    files = row["files"] or []
    texts, file_texts = {name: row[name] for name in TEXTS}, list(files)
    if row["exact"]:
        exact = json.loads(row["exact"])
        texts, file_texts = exact["texts"], list(map(texts_of_file, exact["files"]))
    facts = json.loads(row["facts"])
    preview = f"{PREVIEWS}/{texts['id']}.png" if row["preview_image"] and str(texts["id"]).isalnum() else None
    texts = {name: texts[name] for name in TEXTS} | {"preview": preview}
    known_files = [known_file(file | exact, texts["id"]) for file, exact in zip(files, file_texts, strict=True)]
    return Model(**texts, facts=facts, added=row["added"]), known_files


def texts_of_file(exact: object) -> Row:
    """Return the path and name of a file in column ``exact``, which has only the path in version 1.

    Raises:
        KeyError, TypeError: it is not one of ``text_columns``.
    """
    if isinstance(exact, str):
        return {"path": exact}
    if not isinstance(exact, dict):
        raise TypeError(f"{type(exact).__name__} for a file")
    return {"path": exact["path"], "name": exact["name"]}


def known_file(file: Row, model_id: str) -> KnownFile:
    """Return a file of a model.

    Raises:
        TypeError, KeyError, ValueError: a value is missing or of another type.
    """
    types = [type(file[key]) for key in ("path", "size", "mtime_ns", "reader")]
    facts, name = json.loads(file.get("facts") or "{}"), file.get("name")
    if types != [str, int, int, str] or not isinstance(name, str | None) or not isinstance(facts, dict):
        types += [type(name), type(facts)]
        raise TypeError(f"a file of {', '.join(kind.__name__ for kind in types)}")
    json.dumps(facts, allow_nan=False)
    return KnownFile(file["path"], file["size"], file["mtime_ns"], model_id, None, file["reader"], name, facts)


def write_previews(folder: Path, images: Mapping[str, bytes]) -> None:
    """Write preview images, by their path in the folder.

    Raises:
        DiskRefused: the disk refused it.
    """
    with typed_errors(folder):
        for name, data in images.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
