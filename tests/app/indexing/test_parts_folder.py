"""Parts of a run: finished results come back as they were; damaged, forged and foreign parts are rejected."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from loradex.app.indexing.evidence.preview import MAX_COPY_BYTES
from loradex.app.indexing.file_reader import ReadResult, ZooEntry
from loradex.app.indexing.part_format import (
    MAX_JSON_CHARACTERS,
    BadPart,
    decode_part,
    encode_part,
    encode_row,
    part_schema,
)
from loradex.app.indexing.parts_folder import MANIFEST_NAME, MAX_PART_BYTES, PartsFolder, PartsManifest
from loradex.app.indexing.ray.reading_engine import BATCH
from loradex.app.pictures import MAX_PICTURES
from loradex.index import Evidence, KnownFile, Model, Position
from loradex.retrieval.errors import EngineError
from loradex.retrieval.fingerprint import SIZE

DIM = 8
MANIFEST = PartsManifest("/zoo", "a space", DIM, "experts")


def png(side: int = 16) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(written, "PNG")
    return written.getvalue()


def result(number: int, path: str | None = None) -> ReadResult:
    """A result of each kind: read by an expert (0, 1), by none (2), refused (3); odd ones have pictures."""
    file = KnownFile(path or f"/loras/{number}.safetensors", number, 10**18 + number, reader="experts")
    if number % 4 == 3:
        return ReadResult(file, None, f"{file.path}: refused", permanent=bool(number % 8 == 3))
    vector = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    facts = {"ranks": [4, 8], "title": "Ünïcode 😀 \x00"}
    model = Model(f"{number:020x}", f"model {number}", "sd1", file.path, "dog" if number % 2 else None, None, facts)
    if number % 4 == 2:
        return ReadResult(file, ZooEntry(replace(model, facts=facts | {"no_expert": "stranger"})))
    positions = {Evidence.PICTURE: Position(vector / np.linalg.norm(vector), 20.0 + number / 7, -number / 3)}
    pictures = (png(), png(17)) if number % 2 else ()
    bad = {"/loras/caf\udce9.png": "no picture"} if number % 2 else {}
    return ReadResult(file, ZooEntry(model, positions, bytes(8 + SIZE), pictures, bad))


def assert_same(found: ReadResult | None, expected: ReadResult) -> None:
    """Both are equal, to the last bit."""
    assert found is not None
    assert (found.file, found.refusal, found.permanent) == (expected.file, expected.refusal, expected.permanent)
    assert (found.entry is None) == (expected.entry is None)
    if found.entry and expected.entry:
        assert replace(found.entry, positions={}) == replace(expected.entry, positions={})
        assert list(found.entry.positions) == list(expected.entry.positions)
        for kind, position in expected.entry.positions.items():
            np.testing.assert_array_equal(found.entry.positions[kind].vector, position.vector)
            assert found.entry.positions[kind] == replace(position, vector=found.entry.positions[kind].vector)


def test_a_run_continues_from_finished_parts(tmp_path: Path) -> None:
    written = [result(0, "/loras/caf\udce9 \ud83d.safetensors"), *(result(number) for number in range(1, 80))]
    parts = PartsFolder.open(tmp_path / "parts", MANIFEST)
    for start in range(0, 80, 4):
        parts.add(encode_part(written[start : start + 4], DIM))
    (tmp_path / "parts" / f"part-{'0' * 64}.parquet.part").write_bytes(b"half")
    for again in (parts, PartsFolder.open(tmp_path / "parts", MANIFEST)):
        for expected in written:
            if again is not parts and not expected.permanent:  # a refusal that may not last: the file is read again
                assert expected.file not in again
            else:
                assert_same(again.get(expected.file), expected)
        assert again.get(replace(written[0].file, size=7)) is None  # the file has changed
    assert encode_part(written, DIM) == encode_part(written, DIM)
    again.remove()
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: raw[:100] + bytes([raw[100] ^ 1]) + raw[101:],
        lambda raw: b"",
    ],
)
def test_a_damaged_part_is_deleted(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    parts = PartsFolder.open(tmp_path, MANIFEST)
    for number in (0, 1):
        parts.add(encode_part([result(number)], DIM))
    path = next(tmp_path.glob("part-*"))
    path.write_bytes(damage(path.read_bytes()))
    again = PartsFolder.open(tmp_path, MANIFEST)
    assert [result(number).file in again for number in (0, 1)].count(True) == 1
    assert not path.exists()


def test_a_part_damaged_during_a_run_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loradex.app.indexing.parts_folder.MAX_CACHED_BYTES", 1)
    parts = PartsFolder.open(tmp_path, MANIFEST)
    parts.add(encode_part([result(0)], DIM))
    path = next(tmp_path.glob("part-*"))
    parts.add(encode_part([result(1)], DIM))
    path.write_bytes(b"")
    with pytest.raises(EngineError, match="expected the part that was written"):
        parts.get(result(0).file)


def test_the_largest_part_may_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of as many files as a worker reads, each with as many pictures of the largest size as there may be."""
    texts = 4 * MAX_JSON_CHARACTERS  # file, model, bad pictures, and all numbers
    assert BATCH * (MAX_PICTURES * MAX_COPY_BYTES + texts) <= MAX_PART_BYTES
    raws = [encode_part([result(number)], DIM) for number in range(3)]
    monkeypatch.setattr("loradex.app.indexing.parts_folder.MAX_CACHED_BYTES", len(raws[1]) + len(raws[2]))
    parts = PartsFolder.open(tmp_path, MANIFEST)
    for raw in raws:
        parts.add(raw)
    for path in tmp_path.glob("part-*"):
        path.unlink()
    assert_same(parts.get(result(1).file), result(1))
    assert_same(parts.get(result(2).file), result(2))
    with pytest.raises(EngineError):  # only the bytes of the other two fit into the cache
        parts.get(result(0).file)


ROW = encode_row(result(1))
MODEL = json.loads(ROW["model"])
POSITION = ROW["positions"][0]
FORGED: list[dict[str, Any]] = [
    {"file": "[]"},
    {"file": json.dumps({"path": 1, "size": 1, "mtime_ns": 1})},
    {"file": '{"path": "a", "size": 1, "mtime_ns": 1, "more": 1}'},
    {"file": None},
    {"file": "[" * 100_000},
    {"refusal": None},
    {"noted": None},
    {"model": None},
    {"model": json.dumps(MODEL | {"id": "../../escape"})},
    {"model": json.dumps(MODEL | {"path": "/another"})},
    {"model": json.dumps(MODEL | {"preview": "/etc/passwd"})},
    {"model": json.dumps(MODEL | {"found_by": "magic"})},
    {"model": json.dumps(MODEL | {"evidence": ["picture"]})},
    {"model": json.dumps(MODEL | {"facts": []})},
    {"model": json.dumps(MODEL | {"name": None})},
    {"model": json.dumps(MODEL | {"name": "x" * 2**21})},
    {"positions": None},
    {"positions": [POSITION, POSITION]},
    *(
        {"positions": [POSITION | change]}
        for change in (
            {"vector": None},
            {"vector": [0.0] * DIM},
            {"vector": [float("nan")] * DIM},
            {"kind": "magic"},
            {"kind": "preview"},  # which are placed by the process that writes to the zoo
            {"kind": None},
            {"scale": 0.0},
            {"scale": float("nan")},
            {"scale": 1e9},
            {"scale": None},
            {"bias": float("-inf")},
            {"bias": float("nan")},
            {"bias": None},
        )
    ),
    {"fingerprint": b"short"},
    {"pictures": None},
    {"pictures": [None]},
    {"pictures": [b"no picture"]},
    {"pictures": [png(385)]},
    {"pictures": [png() + bytes(2**20)]},
    {"pictures": [png()] * 9},
    {"bad_pictures": None},
    {"bad_pictures": "[]"},
    {"bad_pictures": '{"a": 1}'},
    {"bad_pictures": json.dumps({str(number): "bad" for number in range(9)})},
    {"file": json.dumps({"path": "/loras/1.safetensors", "size": 1, "mtime_ns": 1, "name": "another"})},
    {"model": json.dumps(MODEL | {"facts": {"no_expert": "stranger"}})},
    {"model": json.dumps(MODEL | {"facts": {"no_expert": "nonsense"}}), "positions": []},
    {"model": json.dumps(MODEL | {"facts": {"no_expert": []}}), "positions": []},
]


@pytest.mark.parametrize("change", FORGED)
def test_a_forged_row_is_refused(change: dict[str, Any]) -> None:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([ROW | change], part_schema(DIM))
    pq.write_table(table, sink, compression="none", use_dictionary=False)
    with pytest.raises(BadPart):
        decode_part(sink.getvalue().to_pybytes(), DIM)


@pytest.mark.parametrize(
    "options", [{"compression": "zstd", "use_dictionary": False}, {"compression": "none", "use_dictionary": True}]
)
def test_compressed_columns_are_refused(options: dict[str, Any]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([ROW], part_schema(DIM)), sink, **options)
    with pytest.raises(BadPart, match="compressed"):
        decode_part(sink.getvalue().to_pybytes(), DIM)


def test_other_columns_and_other_files_are_refused() -> None:
    raw = encode_part([result(number) for number in range(4)], DIM)
    with pytest.raises(BadPart, match="other columns"):
        decode_part(raw, DIM + 1)
    for other in (b"", b"PAR1", b"PAR1" * 100, raw[: len(raw) // 2]):
        with pytest.raises(BadPart):
            decode_part(other, DIM)


def test_flipped_bits_raise_nothing_but_bad_part() -> None:
    """A forged part may have the right name, so decoding must be safe by itself."""
    raw = encode_part([result(number) for number in range(4)], DIM)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(raw), size=300):
        changed = bytearray(raw)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            decode_part(bytes(changed), DIM)
        except BadPart as error:
            assert len(str(error)) <= 200  # noqa: PT017


def test_folders_with_parts_of_another_zoo_or_other_files_are_left_alone(tmp_path: Path) -> None:
    PartsFolder.open(tmp_path / "mine", MANIFEST).add(encode_part([result(0)], DIM))
    with pytest.raises(EngineError, match="expected parts for zoo /other, found some for /zoo"):
        PartsFolder.open(tmp_path / "mine", replace(MANIFEST, zoo="/other"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    with pytest.raises(EngineError, match="expected an empty folder"):
        PartsFolder.open(tmp_path / "foreign", MANIFEST)
    assert (tmp_path / "foreign" / "letter.txt").exists()
    with pytest.raises(EngineError, match="cannot be used"):
        PartsFolder.open(tmp_path / "foreign" / "letter.txt", MANIFEST)
    for text in ("", "[]", "{}", '{"format": "loradex-parts-1", "zoo": 1}', "[" * 60_000, "x" * 2**17):
        (tmp_path / "mine" / MANIFEST_NAME).write_text(text)
        with pytest.raises(EngineError, match="expected a manifest"):
            PartsFolder.open(tmp_path / "mine", MANIFEST)


def test_parts_of_other_experts_are_read_again(tmp_path: Path) -> None:
    PartsFolder.open(tmp_path, MANIFEST).add(encode_part([result(0)], DIM))
    again = PartsFolder.open(tmp_path, replace(MANIFEST, reader="better experts"))
    assert result(0).file not in again
    assert not list(tmp_path.glob("part-*"))


def test_a_worker_that_sends_something_else_is_reported(tmp_path: Path) -> None:
    parts = PartsFolder.open(tmp_path, MANIFEST)
    with pytest.raises(EngineError, match="a worker: expected a part"):
        parts.add(b"something")
    assert hashlib.sha256(b"something").hexdigest() not in str(list(tmp_path.iterdir()))
