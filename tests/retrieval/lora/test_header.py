"""The header parser against safetensors itself, and on invalid files."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loradex.retrieval.errors import FileCorrupt, FileMissing, FileUnsafe, FileUnsupported, LoradexError
from loradex.retrieval.lora.header import Header


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_equal_those_of_safetensors(tmp_path: Path, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tensors = {"b": torch.randn(3, 5).to(dtype), "a": torch.randn(7).to(dtype), "empty": torch.empty(0, 4, dtype=dtype)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"k": "v"})
    header = Header.read(tmp_path / "x.safetensors")
    assert header.metadata == {"k": "v"}
    expected = load_file(tmp_path / "x.safetensors")
    loaded = header.load(["a", "b", "empty"])
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)


def test_only_the_bytes_of_the_named_tensors_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"small": torch.ones(4), "large": torch.ones(1_000_000)}, tmp_path / "x.safetensors")
    header = Header.read(tmp_path / "x.safetensors")
    before = (
        int(Path("/proc/self/io").read_text().split()[1])
        if Path("/proc/self/io").exists()
        else pytest.skip("needs /proc/self/io")
    )
    header.load(["small"])
    assert int(Path("/proc/self/io").read_text().split()[1]) - before < 10_000


@pytest.mark.parametrize(
    ("metadata", "expected"), [(None, None), ({}, {}), ({"k": "v"}, {"k": "v"})], ids=["null", "empty", "one"]
)
@pytest.mark.parametrize("first", [True, False])
def test_metadata_that_are_null_or_empty(
    tmp_path: Path, metadata: dict[str, str] | None, expected: dict[str, str] | None, first: bool
) -> None:
    header = {"__metadata__": metadata, "a": INFO} if first else {"a": INFO, "__metadata__": metadata}
    path = write(tmp_path / "x.safetensors", header, b"\0" * 8)
    with safe_open(path, "pt") as file:
        assert file.metadata() == expected
    assert Header.read(path).metadata == (expected or {})


INFO = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
INVALID: dict[str, tuple[object, bytes]] = {
    "not JSON": (b"{nope", b""),
    "a list": ([1, 2], b""),
    "not UTF-8": (b'{"\xff": 1}', b""),
    "deep nesting": (b'{"a":' * 20_000, b""),
    "a key twice": (
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b"\0" * 8,
    ),
    "metadata that is no text": ({"__metadata__": {"a": 1}, "a": INFO}, b"\0" * 8),
    "unknown dtype": ({"a": INFO | {"dtype": "F31"}}, b"\0" * 8),
    "dtype of another type": ({"a": INFO | {"dtype": ["F32"]}}, b"\0" * 8),
    "negative shape": ({"a": INFO | {"shape": [-2]}}, b"\0" * 8),
    "shape too large": ({"a": INFO | {"shape": [2**40, 2**40]}}, b"\0" * 8),
    "shape as text": ({"a": INFO | {"shape": "2"}}, b"\0" * 8),
    "shape as fraction": ({"a": INFO | {"shape": [2.0]}}, b"\0" * 8),
    "offsets reversed": ({"a": INFO | {"data_offsets": [8, 0]}}, b"\0" * 8),
    "offsets past the end": ({"a": INFO | {"data_offsets": [8, 16]}}, b"\0" * 8),
    "a hole": ({"a": INFO, "b": INFO | {"data_offsets": [12, 20]}}, b"\0" * 20),
    "an overlap": ({"a": INFO, "b": INFO | {"data_offsets": [4, 12]}}, b"\0" * 12),
    "bytes behind the end": ({"a": INFO}, b"\0" * 9),
    "bytes missing": ({"a": INFO}, b"\0" * 7),
    "an entry that is no object": ({"a": 3}, b""),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_headers_end_in_one_line(tmp_path: Path, name: str) -> None:
    header, data = INVALID[name]
    path = write(tmp_path / "x.safetensors", header, data)
    with pytest.raises(FileCorrupt) as caught:
        Header.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 7, 2**31, 2**63, 2**64 - 1])
def test_a_false_length_is_refused_before_anything_is_allocated(tmp_path: Path, length: int) -> None:
    with pytest.raises(FileCorrupt):
        Header.read(write(tmp_path / "x.safetensors", {"a": INFO}, b"\0" * 8, length))


def test_truncation_anywhere_is_noticed(tmp_path: Path) -> None:
    valid = write(tmp_path / "x.safetensors", {"a": INFO}, b"\0" * 8).read_bytes()
    for end in range(len(valid)):
        (tmp_path / "cut").write_bytes(valid[:end])
        with pytest.raises(FileCorrupt):
            Header.read(tmp_path / "cut")


def test_more_tensors_than_any_lora_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileUnsupported, match="20000 tensors"):
        Header.read(
            write(
                tmp_path / "x.safetensors",
                dict.fromkeys(map(str, range(20_001)), INFO | {"data_offsets": [0, 8]}),
                b"\0" * 8,
            )
        )


@pytest.mark.parametrize("first", [b"PK\x03\x04rest of it", b"\x80\x02}q\x00.....", b"\x1f\x8bcompressed"])
def test_pickles_and_archives_are_refused(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(first)
    with pytest.raises(FileUnsafe, match="convert it"):
        Header.read(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [640, 1152])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    raw = (tmp_path / "x.safetensors").read_bytes()
    path = write(tmp_path / "y.safetensors", raw[8:-8].ljust(length), raw[-8:])
    assert path.read_bytes().startswith((b"\x80\x02", b"\x80\x04"))
    assert list(Header.read(path).tensors) == list(load_file(path))


def test_paths_that_are_no_regular_files_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "pipe", Path("/dev/zero"), Path("a\0b")):
        with pytest.raises(FileMissing):
            Header.read(path)


def test_a_file_cut_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(100)}, path)
    header = Header.read(path)
    os.truncate(path, 300)
    with pytest.raises(FileCorrupt, match="changed"):
        header.load(["a"])


def test_accepted_files_are_accepted_by_safetensors(tmp_path: Path) -> None:
    """Change one byte of a valid header at random, many times: what the reference refuses is never accepted."""
    import random

    rng = random.Random(0)  # noqa: S311
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.float16)}, path, metadata={"k": "v"})
    valid, accepted = path.read_bytes(), 0
    for _ in range(1500):
        changed = bytearray(valid)
        changed[rng.randrange(len(valid) - 20)] = rng.randrange(256)
        path.write_bytes(changed)
        try:
            header = Header.read(path)
        except LoradexError:
            continue
        accepted += 1
        theirs = load_file(path)
        assert set(theirs) == set(header.tensors)
    assert accepted > 10
