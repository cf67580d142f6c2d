"""The engine of one state on the disk, so that opening a large zoo does not read all vectors. It is only ever a copy of what the catalogue says.

A folder ``engine/<generation>-<token>`` holds arrays and a manifest with their shapes and checksums; it is renamed into place when all of it is on
the disk. What is damaged, half written or of another state is passed over, and the vectors are read from the catalogue. FAISS's own files promise
no integrity, so none is read: arrays are taken, checked, and given to FAISS.
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

from loradex.index.sqlite.connections import sync, sync_folder, typed_errors
from loradex.index.sqlite.engine import ENGINES, Arrays, Exact, ExactOnGpu, has_gpu
from loradex.index.sqlite.snapshot import Segment, Snapshot, State

FOLDER: Final = "engine"
MANIFEST: Final = "manifest.json"
LARGEST_MANIFEST: Final = 65_536  # bytes
FORMAT: Final = 1
CHUNK: Final = 2**24  # bytes
WORTH_IT: Final = 20_000  # vectors from which the cache is faster than the catalogue
NAME: Final = re.compile(r"(\d{1,18})-([0-9a-f]{16})", re.ASCII)  # of a folder: generation and token
STALE: Final = 0.05  # of the vectors, that were added since
UNSOUND: Final = (
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    OSError,
    MemoryError,
)  # how reading what is not as it was written ends


@dataclass(frozen=True, slots=True)
class Cached:
    """One engine on the disk: its state, and what the manifest says."""

    folder: Path
    state: State
    manifest: dict[str, Any]


def save_engine(zoo: Path, snapshot: Snapshot) -> None:
    """Write the engine of a snapshot, which is in one segment, then drop older ones.

    Raises:
        DiskRefused: the disk refused it; what was there before is still there.
    """
    parent = zoo / FOLDER
    name = f"{snapshot.state.generation}-{snapshot.state.token.hex()}"
    part = parent / f".{name}.part"
    with typed_errors(parent):
        parent.mkdir(exist_ok=True)
        sweep(parent)
        if (parent / name).exists():
            shutil.rmtree(parent / name)
        part.mkdir()
        (segment,) = snapshot.segments
        arrays = {"keys": segment.keys, **segment.engine.arrays()}
        entries = {each: write_array(part / f"{each}.bin", array) for each, array in arrays.items()}
        manifest = {
            "format": FORMAT,
            "state": name,
            "engine": segment.engine.name,
            "dim": snapshot.dim,
            "arrays": entries,
        }
        with (part / MANIFEST).open("w") as file:
            json.dump(manifest, file)
            sync(file)
        sync_folder(part)
        part.replace(parent / name)
        sync_folder(parent)
        for old in parent.iterdir():
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Drop what a killed writer left."""
    for part in parent.glob(".*.part"):
        shutil.rmtree(part, ignore_errors=True)


def drop_engines(zoo: Path) -> None:
    """Forget all engines.

    Raises:
        DiskRefused: the disk refused it.
    """
    with typed_errors(zoo / FOLDER):
        if (zoo / FOLDER).exists():
            shutil.rmtree(zoo / FOLDER)


def write_array(path: Path, array: NDArray[Any]) -> dict[str, Any]:
    """Write an array, little-endian; its entry in the manifest comes back."""
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    check = 0
    with path.open("wb") as file:
        flat = little.reshape(-1).view(np.uint8)
        for start in range(0, len(flat), CHUNK):
            chunk = flat[start : start + CHUNK].tobytes()
            check = crc32(chunk, check)
            file.write(chunk)
        sync(file)
    return {"dtype": little.dtype.str, "shape": list(array.shape), "crc32": check}


def read_array(path: Path, entry: dict[str, Any], largest: int) -> NDArray[Any]:
    """The reverse of ``write_array``, for at most so many bytes.

    Raises:
        UNSOUND: it is not the array that was written.
    """
    dtype, shape = np.dtype(str(entry["dtype"])), tuple(map(int, entry["shape"]))
    size = path.stat().st_size
    if size > largest:
        raise ValueError(f"{size} bytes, more than {largest}")
    if (
        dtype.str[0] == ">"
        or dtype.kind not in "iuf"
        or any(side < 0 for side in shape)
        or size != int(np.prod(shape, dtype=object)) * dtype.itemsize
    ):
        raise ValueError(f"{dtype} {shape} in {size} bytes")
    data, check, filled = np.empty(size, np.uint8), 0, 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            if filled + len(chunk) > size:
                raise ValueError("a longer file")
            data[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            check, filled = crc32(chunk, check), filled + len(chunk)
    if filled != size or check != entry["crc32"]:
        raise ValueError(f"checksum {check}")
    return data.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def engines_on_disk(zoo: Path) -> Iterator[Cached]:
    """The engines that a zoo has, the latest first; folders without a manifest that can be read are passed over."""
    found = []
    with suppress(OSError):
        for folder in (zoo / FOLDER).iterdir():
            with suppress(OSError, ValueError, RecursionError, AttributeError):
                generation, token = NAME.fullmatch(folder.name).groups()  # type: ignore[union-attr]
                if not (folder / MANIFEST).is_file():
                    continue
                with (folder / MANIFEST).open("rb") as file:
                    manifest = json.loads(file.read(LARGEST_MANIFEST))
                found.append(Cached(folder, State(int(generation), bytes.fromhex(token)), manifest))
    yield from sorted(found, key=lambda cached: -cached.state.generation)


def read_segment(cached: Cached, dim: int, most: int) -> Segment:
    """The vectors of an engine on the disk, of at most so many models.

    Raises:
        UNSOUND: it is not as it was written.
    """
    manifest = cached.manifest
    if (manifest["format"], manifest["dim"], manifest["state"]) != (FORMAT, dim, cached.folder.name):
        raise ValueError(f"format {manifest['format']!r} of {manifest['dim']!r} numbers in state {manifest['state']!r}")
    kind = ENGINES[str(manifest["engine"])]
    if kind is ExactOnGpu and not has_gpu():
        kind = Exact
    largest = {"keys": 8 * most} | dict.fromkeys(kind.holds, (4 * dim + 64) * most)
    arrays: Arrays = {
        name: read_array(cached.folder / f"{name}.bin", manifest["arrays"][name], size)
        for name, size in largest.items()
    }
    keys = arrays.pop("keys")
    if (
        keys.dtype != np.int64
        or keys.ndim != 1
        or any(len(array) != len(keys) for array in arrays.values())
        or (np.diff(keys) <= 0).any()
    ):
        raise ValueError(f"keys of {keys.dtype} {keys.shape}")
    return Segment(kind.restore(arrays, dim), keys)


def most_keys(connection: Connection) -> int:
    """How many models a catalogue ever had, which bounds what an engine may hold."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'models'").fetchone()
    return int(row[0]) if row else 0


def load_engine(zoo: Path, connection: Connection, dim: int, wanted: str) -> Snapshot | None:
    """The latest engine on the disk whose state the catalogue went through, or None where none can be used."""
    most = most_keys(connection)
    for cached in engines_on_disk(zoo):
        if cached.state.known_to(connection):
            with suppress(*UNSOUND):
                return Snapshot(cached.state, dim, (read_segment(cached, dim, most),), wanted)
    return None
