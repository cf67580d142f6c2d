"""Parts of a run: what was finished comes back as it was, and what was damaged, forged or another's does not."""

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

from loradex.app.indexing.file_reader import Entry, Outcome
from loradex.app.indexing.part_format import BadPart, layout, outcomes_of, part_of, row_of
from loradex.app.indexing.parts_folder import MANIFEST, Parts, Purpose
from loradex.index import FoundBy, KnownFile, Model
from loradex.retrieval.errors import EngineError
from loradex.retrieval.fingerprint import SIZE

DIM = 8
PURPOSE = Purpose("/zoo", "a space", DIM, "experts")


def png(side: int = 16) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(written, "PNG")
    return written.getvalue()


def outcome(number: int, path: str | None = None) -> Outcome:
    """A LoRA of each kind, or a refusal."""
    file = KnownFile(path or f"/loras/{number}.safetensors", number, 10**18 + number, reader="experts")
    if number % 4 == 3:
        return Outcome(file, None, f"{file.path}: refused", noted=bool(number % 8 == 3))
    vector = np.random.default_rng(number).standard_normal(DIM).astype(np.float32)
    found_by = FoundBy.METADATA if number % 4 == 2 else FoundBy.WEIGHTS
    facts = {"ranks": [4, 8], "title": "Ünïcode 😀 \x00"}
    model = Model(
        f"{number:020x}", f"model {number}", "sd1", found_by, file.path, "dog" if number % 2 else None, None, facts
    )
    if found_by is FoundBy.METADATA:
        return Outcome(file, Entry(model, None))
    return Outcome(file, Entry(model, vector / np.linalg.norm(vector), bytes(8 + SIZE), png() if number % 2 else None))


def same(found: Outcome | None, expected: Outcome) -> None:
    """Both say the same, to the last bit."""
    assert found is not None
    assert (found.file, found.refusal, found.noted) == (expected.file, expected.refusal, expected.noted)
    assert (found.entry is None) == (expected.entry is None)
    if found.entry and expected.entry:
        assert replace(found.entry, vector=None) == replace(expected.entry, vector=None)
        np.testing.assert_array_equal(found.entry.vector, expected.entry.vector)


def test_a_run_goes_on_from_what_it_finished(tmp_path: Path) -> None:
    written = [outcome(0, "/loras/caf\udce9 \ud83d.safetensors"), *(outcome(number) for number in range(1, 80))]
    parts = Parts.open(tmp_path / "parts", PURPOSE)
    for start in range(0, 80, 4):
        parts.add(part_of(written[start : start + 4], DIM))
    (tmp_path / "parts" / f"part-{'0' * 64}.parquet.part").write_bytes(b"half")
    for again in (parts, Parts.open(tmp_path / "parts", PURPOSE)):
        for expected in written:
            if again is not parts and not expected.noted:  # what was refused may be there by now
                assert expected.file not in again
            else:
                same(again.get(expected.file), expected)
        assert again.get(replace(written[0].file, size=7)) is None  # another file than was read
    assert part_of(written, DIM) == part_of(written, DIM)
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
def test_a_damaged_part_is_thrown_away(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    parts = Parts.open(tmp_path, PURPOSE)
    for number in (0, 1):
        parts.add(part_of([outcome(number)], DIM))
    path = next(tmp_path.glob("part-*"))
    path.write_bytes(damage(path.read_bytes()))
    again = Parts.open(tmp_path, PURPOSE)
    assert [outcome(number).file in again for number in (0, 1)].count(True) == 1
    assert not path.exists()


def test_a_part_that_goes_bad_in_a_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loradex.app.indexing.parts_folder.OPEN", 1)
    parts = Parts.open(tmp_path, PURPOSE)
    parts.add(part_of([outcome(0)], DIM))
    path = next(tmp_path.glob("part-*"))
    parts.add(part_of([outcome(1)], DIM))
    path.write_bytes(b"")
    with pytest.raises(EngineError, match="expected the part that was written"):
        parts.get(outcome(0).file)


ROW = row_of(outcome(1))
MODEL = json.loads(ROW["model"])
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
    {"model": json.dumps(MODEL | {"found_by": "metadata"})},
    {"model": json.dumps(MODEL | {"facts": []})},
    {"model": json.dumps(MODEL | {"name": None})},
    {"model": json.dumps(MODEL | {"name": "x" * 2**21})},
    {"vector": None},
    {"vector": [0.0] * DIM},
    {"vector": [float("nan")] * DIM},
    {"fingerprint": b"short"},
    {"preview": b"no picture"},
    {"preview": png(257)},
    {"preview": png() + bytes(2**20)},
]


@pytest.mark.parametrize("change", FORGED)
def test_a_forged_row_is_refused(change: dict[str, Any]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([ROW | change], layout(DIM)), sink, compression="none", use_dictionary=False)
    with pytest.raises(BadPart):
        outcomes_of(sink.getvalue().to_pybytes(), DIM)


@pytest.mark.parametrize(
    "options", [{"compression": "zstd", "use_dictionary": False}, {"compression": "none", "use_dictionary": True}]
)
def test_what_could_unfold_is_refused(options: dict[str, Any]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([ROW], layout(DIM)), sink, **options)
    with pytest.raises(BadPart, match="compressed"):
        outcomes_of(sink.getvalue().to_pybytes(), DIM)


def test_other_columns_and_other_files_are_refused() -> None:
    raw = part_of([outcome(number) for number in range(4)], DIM)
    with pytest.raises(BadPart, match="other columns"):
        outcomes_of(raw, DIM + 1)
    for other in (b"", b"PAR1", b"PAR1" * 100, raw[: len(raw) // 2]):
        with pytest.raises(BadPart):
            outcomes_of(other, DIM)


def test_flipped_bits_never_do_more_than_be_refused() -> None:
    """Whoever writes a part can name it rightly: its reader stands alone."""
    raw = part_of([outcome(number) for number in range(4)], DIM)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(raw), size=300):
        changed = bytearray(raw)
        changed[place] ^= 1 << int(rng.integers(8))
        try:
            outcomes_of(bytes(changed), DIM)
        except BadPart as error:
            assert len(str(error)) <= 200  # noqa: PT017


def test_parts_of_another_zoo_or_of_nothing_known_are_left_alone(tmp_path: Path) -> None:
    Parts.open(tmp_path / "mine", PURPOSE).add(part_of([outcome(0)], DIM))
    with pytest.raises(EngineError, match="expected parts for zoo /other, found some for /zoo"):
        Parts.open(tmp_path / "mine", replace(PURPOSE, zoo="/other"))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "letter.txt").write_text("dear")
    with pytest.raises(EngineError, match="expected an empty folder"):
        Parts.open(tmp_path / "foreign", PURPOSE)
    assert (tmp_path / "foreign" / "letter.txt").exists()
    with pytest.raises(EngineError, match="cannot be used"):
        Parts.open(tmp_path / "foreign" / "letter.txt", PURPOSE)
    for said in ("", "[]", "{}", '{"format": "loradex-parts-1", "zoo": 1}', "[" * 60_000, "x" * 2**17):
        (tmp_path / "mine" / MANIFEST).write_text(said)
        with pytest.raises(EngineError, match="expected a manifest"):
            Parts.open(tmp_path / "mine", PURPOSE)


def test_parts_of_other_experts_are_read_again(tmp_path: Path) -> None:
    Parts.open(tmp_path, PURPOSE).add(part_of([outcome(0)], DIM))
    again = Parts.open(tmp_path, replace(PURPOSE, reader="better experts"))
    assert outcome(0).file not in again
    assert not list(tmp_path.glob("part-*"))


def test_a_worker_that_sends_something_else_is_told(tmp_path: Path) -> None:
    parts = Parts.open(tmp_path, PURPOSE)
    with pytest.raises(EngineError, match="a worker: expected a part"):
        parts.add(b"something")
    assert hashlib.sha256(b"something").hexdigest() not in str(list(tmp_path.iterdir()))
