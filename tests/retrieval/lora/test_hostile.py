"""Files made to break a reader: each ends in a typed error of one line, quickly, in little memory, and with every file closed."""

import errno
import gc
import json
import math
import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

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

SLOWEST = 0.1  # seconds
LARGEST = 50 * 2**20  # bytes
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP, ALPHA = f"{LAYER}.lora.down.weight", f"{LAYER}.lora.up.weight", f"{LAYER}.alpha"
ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def packed(header: object, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def tensors(shapes: dict[str, tuple[int, ...]], fill: float = 1.0, metadata: dict[str, str] | None = None) -> bytes:
    """A sound safetensors file."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, shape in shapes.items():
        values = torch.full(shape, fill).numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return packed(header, data)


def lengths() -> Iterator[tuple[str, bytes]]:
    for length in (0, 1, 7, 8, 100, 2**24 + 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
        yield f"header length {length}", packed({"a": ENTRY}, length=length)
    for size in (0, 1, 7, 8):
        yield f"{size} bytes", b"\x08\0\0\0\0\0\0\0"[:size]


def texts() -> Iterator[tuple[str, bytes]]:
    raw = json.dumps({"a": ENTRY}).encode()
    for name, header in {
        "empty text": b" " * 8,
        "no UTF-8": b'{"\xff":1}',
        "UTF-16": raw.decode().encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + raw,
        "trailing bytes": raw + b"x",
        "trailing NUL": raw + b"\0",
        "two objects": raw + raw,
        "cut in a string": raw[:2],
        "single quotes": raw.replace(b'"', b"'"),
        "a comment": b"{/* */" + raw[1:],
        "a trailing comma": raw[:-1] + b",}",
        "a raw newline in a key": raw.replace(b'"a"', b'"a\n"'),
        "NaN": raw.replace(b"[2]", b"[NaN]"),
        "Infinity": raw.replace(b"[2]", b"[Infinity]"),
        "1e400": raw.replace(b"[2]", b"[1e400]"),
        "a number of 5,000 digits": raw.replace(b"[2]", b"[" + b"9" * 5000 + b"]"),
        "a list": b"[" + raw + b"]",
        "a number": b"12345678",
        "a string": b'"aaaaaaaa"',
        "null": b"null    ",
        "1,000 lists deep": b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}",
        "100,000 lists deep": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "100,000 objects deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        "deep in the metadata": b'{"__metadata__":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
        "100,000 keys": json.dumps(dict.fromkeys(map(str, range(100_000)), ENTRY)).encode(),
        "100,000 keys of nothing": json.dumps(dict.fromkeys(map(str, range(100_000)))).encode(),
        "a string of 10 MB": b'{"' + b"a" * 10_000_000 + b'":1}',
        "a key twice": b'{"a":%b,"a":%b}' % (raw[5:-1], raw[5:-1]),
        "metadata twice": b'{"__metadata__":{},"__metadata__":{},' + raw[1:],
        "metadata twice, apart": b'{"__metadata__":{},' + raw[1:-1] + b',"__metadata__":{}}',
        "a key of the metadata twice": b'{"__metadata__":{"k":"1","k":"2"},' + raw[1:],
        "metadata with no comma behind": b'{"__metadata__":{} ' + raw[1:],
        "metadata and a second comma": b'{"__metadata__":{},,' + raw[1:],
        "minus zero": raw.replace(b"[0, 8]", b"[-0, 8]"),
        "half of a surrogate pair in a name": raw.replace(b'"a"', b'"a\\ud800"'),
        "half of a surrogate pair in metadata": b'{"__metadata__":{"k":"\\ud800"},' + raw[1:],
        "half of a surrogate pair in a key of metadata": b'{"__metadata__":{"\\udfff":"v"},' + raw[1:],
        "both halves the wrong way round": raw.replace(b'"a"', b'"a\\ude00\\ud83d"'),
    }.items():
        yield name, packed(header)


def entries() -> Iterator[tuple[str, bytes]]:
    for metadata in (3, None, [], "x", {"k": 1}, {"k": None}, {"k": {}}):
        yield f"metadata {metadata!r}", packed({"__metadata__": metadata, "a": ENTRY})
    for dtype in ("F31", "", "f32", "F64", "BOOL", 32, None, ["F32"], {"F32": 1}):
        yield f"dtype {dtype!r}", packed({"a": ENTRY | {"dtype": dtype}})
    shapes = (
        [-2],
        [2.0],
        ["2"],
        "2",
        2,
        None,
        {},
        [True, 2],
        [2**62, 4],
        [2**40, 2**40],
        [0],
        [],
        [2, 0],
        [1] * 300 + [3],
        [[2]],
        [2**63],
        [None],
    )
    shapes += (
        ["a", 2**30],
        [[1], 2**30],
        [2**62, 2**62, 0],
        [2**56] * 100_000,
    )  # products of texts, of lists, too large on the way, and slow ones
    for shape in shapes:
        yield f"shape {str(shape)[:30]}", packed({"a": ENTRY | {"shape": shape}})
    for offsets in (
        [8, 0],
        [-8, 0],
        [0, 9],
        [0, 2**63],
        [0],
        [0, 4, 8],
        [],
        None,
        "0,8",
        ["0", "8"],
        [0.0, 8.0],
        [8, 16],
        [2**64, 2**64 + 8],
        [4, 12],
    ):
        yield f"offsets {offsets!r}", packed({"a": ENTRY | {"data_offsets": offsets}})
    for missing in ENTRY:
        yield f"an unknown field beside {missing}", packed({"a": ENTRY | {missing + "s": None}})
        yield f"no {missing}", packed({"a": {key: value for key, value in ENTRY.items() if key != missing}})
    for entry in (3, None, "x", [], True):
        yield f"entry {entry!r}", packed({"a": entry})
    second = ENTRY | {"data_offsets": [8, 16]}
    yield "an overlap", packed({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, b"\0" * 12)
    yield "4 bits and no whole bytes", packed({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"\0")
    yield "the same span twice", packed({"a": ENTRY, "b": ENTRY})
    yield "a hole", packed({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, b"\0" * 20)
    yield "a hole before the first", packed({"a": second}, b"\0" * 16)
    yield "bytes behind the end", packed({"a": ENTRY}, b"\0" * 9)
    yield "bytes missing", packed({"a": ENTRY, "b": second}, b"\0" * 12)
    yield "nothing at all", packed({}, b"")
    yield "metadata alone", packed({"__metadata__": {"k": "v"}}, b"")


def containers() -> Iterator[tuple[str, bytes]]:
    yield from {
        "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0\x8c\x07example\x94.",
        "an old pickle": b"\x80\x02}q\0X\x01\0\0\0aq\x01K\x01s.",
        "a zip": b"PK\x03\x04" + b"\0" * 40,
        "gzip": b"\x1f\x8b\x08\0" + b"\0" * 40,
        "an HTML page": b"<!DOCTYPE html><html><head><title>404</title></head></html>",
        "a git-LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
        "a PNG": b"\x89PNG\r\n\x1a\n" + b"\0" * 40,
        "GGUF": b"GGUF\x03\0\0\0" + b"\0" * 40,
        "zeros": b"\0" * 4096,
        "ones": b"\xff" * 4096,
    }.items()


def loras() -> Iterator[tuple[str, bytes]]:
    for name, shapes in {
        "down without up": {DOWN: (4, 8)},
        "up without down": {UP: (8, 4)},
        "ranks that differ": {DOWN: (4, 8), UP: (8, 5)},
        "rank 0": {DOWN: (0, 8), UP: (8, 0)},
        "a side of 0": {DOWN: (4, 0), UP: (8, 4)},
        "factors that are vectors": {DOWN: (4,), UP: (8,)},
        "factors that are numbers": {DOWN: (), UP: ()},
        "an alpha of two numbers": {DOWN: (4, 8), UP: (8, 4), ALPHA: (2,)},
        "no LoRA": {"model.weight": (2, 2)},
        "an alpha alone": {"lora_unet_x.alpha": ()},
        "a name of 10,000 letters": {"a" * 10_000: (2, 2)},
    }.items():
        yield name, tensors(shapes)


CORPUS = dict(case for kind in (lengths, texts, entries, containers, loras) for case in kind())
WHOLE = {  # read only when its numbers are
    "an alpha that is no number": tensors({DOWN: (4, 8), UP: (8, 4), ALPHA: ()}, float("nan")),
    "weights that are no numbers": tensors({DOWN: (4, 8), UP: (8, 4)}, float("nan")),
    "infinite weights": tensors({DOWN: (4, 8), UP: (8, 4)}, float("inf")),
    "weights of which products are infinite": tensors({DOWN: (4, 8), UP: (8, 4)}, 1e30),
}
HARMLESS = {
    "code": "__import__('os').system('touch /tmp/x')",
    "HTML": "<img src=x onerror=alert(1)>",
    "terminal escapes": "\x1b[2J\x1b]0;title\x07",
    "a path": "../../../../etc/passwd\0",
    "right to left": "\u202etxt.exe",
    "deep JSON": "[" * 100_000,
    "JSON of another kind": '{"a": [1, {"b": null}]}',
    "a huge number": '{"x": {"tag": 1e400, "other": ' + "9" * 5000 + "}}",
}
KEYS = (
    "ss_tag_frequency",
    "ss_datasets",
    "ss_network_module",
    "software",
    "modelspec.trigger_phrase",
    "unet",
    "text_encoder",
    "lora_adapter_metadata",
)


def test_the_corpus_is_as_large_as_promised() -> None:
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
    assert fastest < SLOWEST
    assert peak < LARGEST
    assert open_files() == before


def open_files() -> int:
    """How many this process has open, where the system tells."""
    descriptors = Path("/proc/self/fd")
    return sum(1 for _ in descriptors.iterdir()) if descriptors.exists() else 0


@pytest.mark.parametrize("name", WHOLE)
def test_numbers_that_are_none_are_refused_when_they_are_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(WHOLE[name])
    lora = LoraFile.open(tmp_path / "x.safetensors")
    with pytest.raises(FileError, match="finite"):
        Fingerprint.of(lora.each_update())


@pytest.mark.parametrize("text", HARMLESS.values(), ids=list(HARMLESS))
def test_what_metadata_say_is_never_obeyed(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.safetensors"
    for key in KEYS:
        path.write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}, metadata={key: text}))
        answer = inspect_files([path], False, lambda *_: None)
        assert len(answer.files) + len(answer.refused) == 1
        json.dumps(answer.document())


def test_odd_places(tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.safetensors"
    with sparse.open("wb") as file:
        file.truncate(2**40)
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "device.safetensors").symlink_to("/dev/zero")
    (tmp_path / "loop.safetensors").symlink_to(tmp_path / "loop.safetensors")
    (tmp_path / "error.safetensors").symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read
    places = sorted(tmp_path.iterdir())
    for path in places:
        with pytest.raises(FileError):
            LoraFile.open(path)
    (tmp_path / "good.safetensors").write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}))
    long = tmp_path / ("a" * 243 + ".safetensors")  # its side-cars' names are longer than file systems take
    long.write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}))
    answer = inspect_files([*places, tmp_path / "good.safetensors", long, Path("b" * 5000)], True, lambda *_: None)
    assert [Path(found["file"]).name for found in answer.files] == ["good.safetensors", long.name]
    assert answer.refused.keys() == {*map(str, places), "b" * 5000}


def test_a_disk_that_fails_later_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.safetensors").write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}))
    lora = LoraFile.open(tmp_path / "x.safetensors")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("loradex.retrieval.lora.header.torch.frombuffer", fail)
    monkeypatch.setattr("loradex.retrieval.lora.file.hashlib.file_digest", fail)
    for reading in ("updates", "data_hash", "sha256"):
        with pytest.raises(FileMissing, match="Input/output error"):
            read(lora, reading)


def read(lora: LoraFile, reading: str) -> None:
    """All of a file's data, in one of the ways there are."""
    lora.updates() if reading == "updates" else getattr(lora, reading)


def test_a_file_that_takes_the_place_of_another_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "x.safetensors", tmp_path / "y"
    for size, replace in (
        (8, os.replace),
        (16, os.replace),
        (8, lambda source, target: target.write_bytes(source.read_bytes())),
    ):
        path.write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}))
        os.utime(path, (0, 0))
        lora = LoraFile.open(path)
        other.write_bytes(tensors({DOWN: (4, size), UP: (8, 4)}, 2.0))
        replace(other, path)
        for reading in ("updates", "data_hash", "sha256"):
            with pytest.raises(FileCorrupt, match="changed"):
                read(lora, reading)


def test_a_part_of_any_role_has_a_bound(tmp_path: Path) -> None:
    """Sparse files of gigabytes, in parts that no rank bounds."""
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
        path.write_bytes(packed(header, b""))
        os.truncate(path, path.stat().st_size + end)
        with pytest.raises(FileUnsupported, match="numbers a tensor"):
            LoraFile.open(path)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F6_E3M2", "C64"])
def test_numbers_of_odd_kinds_are_unsupported_and_not_corrupt(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "x.safetensors"
    size = 32 * BITS[dtype] // 8
    odd = {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, (name, shape) in enumerate({DOWN: [4, 8], UP: [8, 4]}.items())
    }
    path.write_bytes(packed(odd, b"\1" * (2 * size)))
    with pytest.raises(FileUnsupported, match="4 or 6 bits"):
        LoraFile.open(path)
    sound = {
        f"lora_unet_x.lora_{half}.weight": {
            "dtype": "F32",
            "shape": [1, 1],
            "data_offsets": [2 * size + i, 2 * size + i + 4],
        }
        for half, i in (("down", 0), ("up", 4))
    }
    path.write_bytes(packed(odd | sound, b"\1" * (2 * size + 8)))
    assert "1 layers of numbers of 4 or 6 bits, or complex ones are not read" in LoraFile.open(path).problems
    with safe_open(path, "pt") as file:  # sound for the reference too
        assert len(file.keys()) == 4


@pytest.mark.parametrize(
    "dtype",
    [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu],
)
def test_rare_types_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file(
        {DOWN: torch.ones(4, 8).to(dtype), UP: torch.ones(8, 4), "step": torch.ones(()).to(dtype)},
        tmp_path / "x.safetensors",
    )
    (update,) = LoraFile.open(tmp_path / "x.safetensors").updates().values()
    assert torch.equal(update.down, torch.ones(4, 8))


def test_halves_of_letters_in_side_cars_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}, metadata={"ss_tag_frequency": '{"a": {"tag\\ud800": 1}}'}))
    path.with_suffix(".civitai.info").write_text('{"trainedWords": ["x\\ud800"], "model": {"name": "\\udfff"}}')
    (found,) = inspect_files([path], False, lambda *_: None).files
    assert (found["title"], found["trigger_words"], found["tags"]) == ("?", ["x?"], ["tag?"])


def test_truncation_at_every_byte_of_the_header(tmp_path: Path) -> None:
    whole = tensors({DOWN: (4, 8), UP: (8, 4)}, metadata={"k": "v"})
    end = 8 + int.from_bytes(whole[:8], "little")
    for length in (*range(end + 1), len(whole) - 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(FileError):
            LoraFile.open(tmp_path / "cut")


def test_a_batch_goes_on_and_names_every_bad_file(tmp_path: Path) -> None:
    for number, content in enumerate(CORPUS.values()):
        if len(content) < 1_000_000:
            (tmp_path / f"bad-{number:03}.safetensors").write_bytes(content)
    (tmp_path / "good.safetensors").write_bytes(tensors({DOWN: (4, 8), UP: (8, 4)}))
    bad = {str(path) for path in tmp_path.glob("bad-*")}
    answer = inspect_files([tmp_path], False, lambda *_: None)
    assert [Path(found["file"]).name for found in answer.files] == ["good.safetensors"]
    assert answer.refused.keys() == bad


def test_what_we_accept_safetensors_accepts(tmp_path: Path) -> None:
    """Pieces of a sound header deleted, doubled, moved or changed, thousands of times, against the reference."""
    rng = random.Random(0)  # noqa: S311
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2, 2, dtype=torch.float16)}, path, metadata={"k": "v"})
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header, data = whole[8:end].rstrip(), whole[end:]
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
        path.write_bytes(packed(bytes(changed), data))
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
