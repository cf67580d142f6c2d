"""Engines saved on the disk, so that opening a large zoo does not read all vectors from the catalogue.

A folder ``engine/<generation>-<token>`` holds arrays and a manifest with their shapes and checksums; it is renamed into
place when all of it is on the disk. An engine that is damaged, incomplete or of another state is ignored. FAISS's own
files have no checksums, so none is read: the arrays are read, checked, and given to FAISS.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from loradex.index.disk import sync, sync_folder, typed_errors
from loradex.index.model import State
from loradex.index.sqlite.commits import is_past_state
from loradex.index.sqlite.engine import ENGINES, Arrays, ExactEngine, GpuEngine, has_gpu
from loradex.index.sqlite.slots import PER_MODEL
from loradex.index.sqlite.snapshot import Segment, Snapshot

FOLDER: Final = "engine"
MANIFEST: Final = "manifest.json"
LARGEST_MANIFEST: Final = 65_536  # bytes
FORMAT: Final = 2
CHUNK: Final = 2**24  # bytes
FOLDER_NAME: Final = re.compile(r"(\d{1,18})-([0-9a-f]{16})", re.ASCII)  # generation and token

# what reading an engine raises that is not as it was written
READ_ERRORS: Final = (ValueError, LookupError, TypeError, ArithmeticError, OSError, MemoryError)


@dataclass(frozen=True, slots=True)
class SavedEngine:
    """An engine on the disk: its folder, the state it was saved at, and its manifest, unchecked."""

    folder: Path
    state: State
    manifest: dict[str, Any]


def save_engine(zoo: Path, snapshot: Snapshot) -> None:
    """Save the engine of a snapshot of one segment, then delete older ones.

    Raises:
        DiskRefused: the disk refused it; the engines saved before are still there.
    """
    parent = zoo / FOLDER
    name = f"{snapshot.state.generation}-{snapshot.state.token.hex()}"
    part = parent / f".{name}.part"
    with typed_errors(parent):
        parent.mkdir(exist_ok=True)
        delete_partial_engines(parent)
        if (parent / name).exists():
            shutil.rmtree(parent / name)
        part.mkdir()
        (segment,) = snapshot.segments
        arrays = {"slots": segment.slots, **segment.engine.arrays()}
        manifest = {
            "format": FORMAT,
            "state": name,
            "engine": segment.engine.name,
            "dim": snapshot.dim,
            "arrays": {each: write_array(part / f"{each}.bin", array) for each, array in arrays.items()},
        }
        with (part / MANIFEST).open("w") as file:
            json.dump(manifest, file)
            sync(file)
        sync_folder(part)
        part.replace(parent / name)
        sync_folder(parent)
        for folder in parent.iterdir():
            if folder.name != name:
                shutil.rmtree(folder, ignore_errors=True)


def delete_partial_engines(parent: Path) -> None:
    """Delete what killed writers left."""
    for part in parent.glob(".*.part"):
        shutil.rmtree(part, ignore_errors=True)


def delete_engines(zoo: Path) -> None:
    """Delete all saved engines of a zoo.

    Raises:
        DiskRefused: the disk refused it.
    """
    with typed_errors(zoo / FOLDER):
        if (zoo / FOLDER).exists():
            shutil.rmtree(zoo / FOLDER)


def write_array(path: Path, array: NDArray[Any]) -> dict[str, Any]:
    """Write an array in little-endian order and return its entry in the manifest."""
    little_endian = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    data, checksum = little_endian.reshape(-1).view(np.uint8), 0
    with path.open("wb") as file:
        for start in range(0, len(data), CHUNK):
            chunk = data[start : start + CHUNK].tobytes()
            checksum = crc32(chunk, checksum)
            file.write(chunk)
        sync(file)
    return {"dtype": little_endian.dtype.str, "shape": list(array.shape), "crc32": checksum}


def read_array(path: Path, entry: dict[str, Any], max_bytes: int) -> NDArray[Any]:
    """Read an array of ``write_array`` by its entry in the manifest.

    Raises:
        READ_ERRORS: it is too large, or not the array that was written.
    """
    dtype, shape = np.dtype(str(entry["dtype"])), tuple(map(int, entry["shape"]))
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{size} bytes, more than {max_bytes}")
    if (
        dtype.str[0] == ">"
        or dtype.kind not in "iuf"
        or any(side < 0 for side in shape)
        or size != int(np.prod(shape, dtype=object)) * dtype.itemsize
    ):
        raise ValueError(f"{dtype} {shape} in {size} bytes")
    data, checksum, filled = np.empty(size, np.uint8), 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if filled + len(chunk) > size:
                raise ValueError("a longer file")
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            checksum, filled = crc32(chunk, checksum), filled + len(chunk)
    if filled != size or checksum != entry["crc32"]:
        raise ValueError(f"checksum {checksum}")
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def saved_engines(zoo: Path) -> Iterator[SavedEngine]:
    """Yield the saved engines of a zoo, the latest first.

    Folders without a readable manifest of this format are ignored.
    """
    engines = []
    with suppress(OSError):
        for folder in (zoo / FOLDER).iterdir():
            with suppress(OSError, ValueError, RecursionError, AttributeError, LookupError, TypeError):
                generation, token = FOLDER_NAME.fullmatch(folder.name).groups()  # type: ignore[union-attr]
                if not (folder / MANIFEST).is_file():
                    continue
                with (folder / MANIFEST).open("rb") as file:
                    manifest = json.loads(file.read(LARGEST_MANIFEST))
                if manifest["format"] == FORMAT:
                    engines.append(SavedEngine(folder, State(int(generation), bytes.fromhex(token)), manifest))
    yield from sorted(engines, key=lambda saved: -saved.state.generation)


def read_segment(saved: SavedEngine, dim: int, max_models: int) -> Segment:
    """Read a saved engine, of at most ``max_models`` models.

    Raises:
        READ_ERRORS: it is not as it was written.
    """
    manifest = saved.manifest
    if (manifest["dim"], manifest["state"]) != (dim, saved.folder.name):
        raise ValueError(f"{manifest['dim']!r} numbers in state {manifest['state']!r}")
    engine_class = ENGINES[str(manifest["engine"])]
    if engine_class is GpuEngine and not has_gpu():
        engine_class = ExactEngine
    max_rows = PER_MODEL * max_models
    max_bytes = {"slots": 8 * max_rows} | dict.fromkeys(engine_class.array_names, (4 * dim + 64) * max_rows)
    arrays: Arrays = {
        name: read_array(saved.folder / f"{name}.bin", manifest["arrays"][name], size)
        for name, size in max_bytes.items()
    }
    slots = arrays.pop("slots")
    if (
        slots.dtype != np.int64
        or slots.ndim != 1
        or any(len(array) != len(slots) for array in arrays.values())
        or (np.diff(slots) <= 0).any()
    ):
        raise ValueError(f"slots of {slots.dtype} {slots.shape}")
    return Segment(engine_class.from_arrays(arrays, dim), slots)


def largest_key(connection: Connection) -> int:
    """Return the largest key that a catalogue ever gave, which bounds the size of a saved engine."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'models'").fetchone()
    return int(row[0]) if row else 0


def load_snapshot(zoo: Path, connection: Connection, dim: int, engine_kind: str) -> Snapshot | None:
    """Return the snapshot of the latest saved engine that is sound and of a past state of the catalogue."""
    max_models = largest_key(connection)
    for saved in saved_engines(zoo):
        if is_past_state(connection, saved.state):
            with suppress(*READ_ERRORS):
                return Snapshot(saved.state, dim, (read_segment(saved, dim, max_models),), engine_kind)
    return None
