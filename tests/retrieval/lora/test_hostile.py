"""Hostile files end in a one-line FileError, quickly, in little memory, with all files closed."""

import errno
import gc
import json
import math
import os
import random
import tracemalloc
from pathlib import Path
from time import process_time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loradex.app.describe.inspection import inspect_files
from loradex.retrieval.errors import FileCorrupt, FileError, FileMissing, FileUnsupported, LoradexError
from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layout import BITS
from tests.retrieval.lora.hostile_files import (
    BAD_NUMBERS,
    CORPUS,
    DOWN,
    METADATA,
    METADATA_KEYS,
    UP,
    pack,
    valid_file,
)

MAX_SECONDS = 0.1
MAX_BYTES = 50 * 2**20


def test_the_size_of_the_corpus() -> None:
    assert len(CORPUS) >= 120


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_file_ends_in_one_line(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(CORPUS[name])
    gc.collect()
    before, fastest = open_files(), float("inf")
    for attempt in range(3):
        if attempt == 2:
            tracemalloc.start()
        started = process_time()
        with pytest.raises(FileError) as caught:
            LoraFile.open(path)
        fastest = min(fastest, process_time() - started)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 500
    assert fastest < MAX_SECONDS
    assert peak < MAX_BYTES
    assert open_files() == before


def open_files() -> int:
    """How many files this process has open; 0 if the system does not show it."""
    descriptors = Path("/proc/self/fd")
    return sum(1 for _ in descriptors.iterdir()) if descriptors.exists() else 0


@pytest.mark.parametrize("name", BAD_NUMBERS)
def test_numbers_that_are_not_finite_are_refused_when_they_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(BAD_NUMBERS[name])
    lora = LoraFile.open(tmp_path / "x.safetensors")
    with pytest.raises(FileError, match="finite"):
        Fingerprint.of(lora.iter_updates())


@pytest.mark.parametrize("text", METADATA.values(), ids=list(METADATA))
def test_hostile_metadata_are_only_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    for key in METADATA_KEYS:
        path.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}, metadata={key: text}))
        answer = inspect_files([path], False, lambda *_: None)
        assert len(answer.files) + len(answer.refused) == 1
        json.dumps(answer.document())


def test_paths_that_are_no_readable_files(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.safetensors"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    (tmp_path / "error.safetensors").symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read
    unreadable = sorted(tmp_path.iterdir())
    for path in unreadable:
        with pytest.raises(FileError):
            LoraFile.open(path)
    (tmp_path / "good.safetensors").write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}))
    long = tmp_path / ("a" * 243 + ".safetensors")  # the names of its side-cars are too long for file systems
    long.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}))
    answer = inspect_files([*unreadable, tmp_path / "good.safetensors", long, Path("b" * 5000)], True, lambda *_: None)
    assert [Path(file["file"]).name for file in answer.files] == ["good.safetensors", long.name]
    assert answer.refused.keys() == {*map(str, unreadable), "b" * 5000}


def test_a_failing_disk_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.safetensors").write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}))
    lora = LoraFile.open(tmp_path / "x.safetensors")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("loradex.retrieval.lora.header.torch.frombuffer", fail)
    monkeypatch.setattr("loradex.retrieval.lora.file.hashlib.file_digest", fail)
    for reading in ("updates", "data_hash", "sha256"):
        with pytest.raises(FileMissing, match="Input/output error"):
            read(lora, reading)


def read(lora: LoraFile, reading: str) -> None:
    """Read all data of a file in one of several ways."""
    lora.updates() if reading == "updates" else getattr(lora, reading)


def test_a_replaced_file_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "x.safetensors", tmp_path / "y"
    for size, replace in (
        (8, os.replace),
        (16, os.replace),
        (8, lambda source, target: target.write_bytes(source.read_bytes())),
    ):
        path.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}))
        os.utime(path, (0, 0))
        lora = LoraFile.open(path)
        other.write_bytes(valid_file({DOWN: (4, size), UP: (8, 4)}, 2.0))
        replace(other, path)
        for reading in ("updates", "data_hash", "sha256"):
            with pytest.raises(FileCorrupt, match="changed"):
                read(lora, reading)


def test_parts_of_all_roles_are_bounded(tmp_path: Path) -> None:
    """Sparse files of gigabytes, in parts whose size the rank does not bound."""
    module, many = "lora_unet_x", 2**28
    for shapes in (
        {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4), "dora_scale": (many,)},
        {"lora_down.weight": (4, 8), "lora_up.weight": (8, 4), "dora_scale": (0, 2**62, 2)},
        {"lora_down.weight": (many, 1), "lora_up.weight": (8, 1), "lora_mid.weight": (1, many, 1)},
        {
            "hada_w1_a": (1, 8),
            "hada_w1_b": (many, 1),
            "hada_t1": (1, many, 1),
            "hada_w2_a": (8, 1),
            "hada_w2_b": (1, 1),
        },
    ):
        header, end = {}, 0
        for role, shape in shapes.items():
            header[f"{module}.{role}"] = {
                "dtype": "F32",
                "shape": shape,
                "data_offsets": [end, end + 4 * math.prod(shape)],
            }
            end += 4 * math.prod(shape)
        path = tmp_path / "x.safetensors"
        path.write_bytes(pack(header, b""))
        os.truncate(path, path.stat().st_size + end)
        with pytest.raises(FileUnsupported, match="numbers a tensor"):
            LoraFile.open(path)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "C64"])
def test_other_dtypes_are_unsupported_and_not_corrupt(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.safetensors"
    size = 32 * BITS[dtype] // 8
    unsupported = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, (name, shape) in enumerate({DOWN: [4, 8], UP: [8, 4]}.items())
    }
    path.write_bytes(pack(unsupported, b"\1" * (2 * size)))
    with pytest.raises(FileUnsupported, match="4 or 6 bits"):
        LoraFile.open(path)
    supported = {
        f"lora_unet_x.lora_{half}.weight": {
            "dtype": "F32",
            "shape": [1, 1],
            "data_offsets": [2 * size + i, 2 * size + i + 4],
        }
        for half, i in (("down", 0), ("up", 4))
    }
    path.write_bytes(pack(unsupported | supported, b"\1" * (2 * size + 8)))
    assert "1 layers of numbers of 4 or 6 bits, or complex ones are not read" in LoraFile.open(path).problems
    with safe_open(path, "pt") as file:  # valid for the reference too
        assert len(file.keys()) == 4


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.int8])
def test_whole_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """They stand for other numbers, by scales that the file does not hold."""
    save_file({DOWN: torch.ones(4, 8).to(dtype), UP: torch.ones(8, 4)}, tmp_path / "x.safetensors")
    with pytest.raises(FileUnsupported, match="as plain numbers, found quantised ones"):
        LoraFile.open(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu])
def test_rare_dtypes_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file(
        {DOWN: torch.ones(4, 8).to(dtype), UP: torch.ones(8, 4), "step": torch.ones(()).to(dtype)},
        tmp_path / "x.safetensors",
    )
    (update,) = LoraFile.open(tmp_path / "x.safetensors").updates().values()
    assert torch.equal(update.down, torch.ones(4, 8))


def test_lone_surrogates_in_side_cars_become_question_marks(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}, metadata={"ss_tag_frequency": '{"a": {"tag\\ud800": 1}}'}))
    path.with_suffix(".civitai.info").write_text('{"trainedWords": ["x\\ud800"], "model": {"name": "\\udfff"}}')
    (file,) = inspect_files([path], False, lambda *_: None).files
    assert (file["title"], file["trigger_words"], file["tags"]) == ("?", ["x?"], ["tag?"])


def test_truncation_at_every_byte_of_the_header(tmp_path: Path) -> None:
    raw = valid_file({DOWN: (4, 8), UP: (8, 4)}, metadata={"k": "v"})
    end = 8 + int.from_bytes(raw[:8], "little")
    for length in (*range(end + 1), len(raw) - 1):
        (tmp_path / "cut").write_bytes(raw[:length])
        with pytest.raises(FileError):
            LoraFile.open(tmp_path / "cut")


def test_a_batch_names_every_bad_file_and_reads_the_others(tmp_path: Path) -> None:
    for number, content in enumerate(CORPUS.values()):
        if len(content) < 1_000_000:
            (tmp_path / f"bad-{number:03}.safetensors").write_bytes(content)
    (tmp_path / "good.safetensors").write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}))
    bad = {str(path) for path in tmp_path.glob("bad-*")}
    answer = inspect_files([tmp_path], False, lambda *_: None)
    assert [Path(file["file"]).name for file in answer.files] == ["good.safetensors"]
    assert answer.refused.keys() == bad


def test_accepted_files_are_accepted_by_safetensors(tmp_path: Path) -> None:
    """Change pieces of a valid header, thousands of times: what the reference refuses is never accepted."""
    rng = random.Random(0)  # noqa: S311
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.float16)}, path, metadata={"k": "v"})
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header, data = raw[8:end].rstrip(), raw[end:]
    pieces = [
        b'"__metadata__":{"k":"v"}',
        b'"a"',
        b'"shape":[3]',
        b'"\\u0061"',
        b'"\\ud800"',
        b"\xc3\xa9",
        b"e1",
        b"-0",
        b'"x":NaN',
        b',"x":1e999',
        *(bytes([c]) for c in b",{}[]:01 \n\\\f"),
    ]
    accepted = 0
    for _ in range(4000):
        changed = bytearray(header)
        for _ in range(rng.choice((1, 1, 2, 3))):
            start = rng.randrange(len(changed))
            stop = min(len(changed), start + rng.randrange(12))
            action = rng.randrange(4)
            if action == 0:
                del changed[start:stop]
            elif action == 1:
                changed[start:start] = changed[start:stop]
            elif action == 2:
                changed[start:stop] = rng.choice(pieces)
            else:
                changed[start:start] = rng.choice(pieces)
        path.write_bytes(pack(bytes(changed), data))
        try:
            ours = Header.read(path)
        except LoradexError:
            continue
        accepted += 1
        theirs = load_file(path)
        loaded = ours.load(ours.tensors)
        assert theirs.keys() == loaded.keys()
        assert all(
            torch.equal(theirs[name].view(torch.uint8), loaded[name].view(torch.uint8))
            for name in theirs
            if theirs[name].numel()
        )
    assert accepted > 40
