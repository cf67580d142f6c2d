"""Safetensors files that are made to break a reader."""

import json
from collections.abc import Iterator
from typing import Any

import torch

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
DOWN, UP, ALPHA = f"{LAYER}.lora.down.weight", f"{LAYER}.lora.up.weight", f"{LAYER}.alpha"
ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def pack(header: object, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def valid_file(shapes: dict[str, tuple[int, ...]], fill: float = 1.0, metadata: dict[str, str] | None = None) -> bytes:
    """A valid safetensors file."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, shape in shapes.items():
        values = torch.full(shape, fill).numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    return pack(header, data)


def lengths() -> Iterator[tuple[str, bytes]]:
    for length in (0, 1, 7, 8, 100, 2**24 + 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
        yield f"header length {length}", pack({"a": ENTRY}, length=length)
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
        yield name, pack(header)


def entries() -> Iterator[tuple[str, bytes]]:
    for metadata in (3, [], "x", {"k": 1}, {"k": None}, {"k": {}}):
        yield f"metadata {metadata!r}", pack({"__metadata__": metadata, "a": ENTRY})
    for dtype in ("F31", "", "f32", "F64", "BOOL", 32, None, ["F32"], {"F32": 1}):
        yield f"dtype {dtype!r}", pack({"a": ENTRY | {"dtype": dtype}})
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
    )  # products of texts, of lists, with overflows on the way, and slow ones
    for shape in shapes:
        yield f"shape {str(shape)[:30]}", pack({"a": ENTRY | {"shape": shape}})
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
        yield f"offsets {offsets!r}", pack({"a": ENTRY | {"data_offsets": offsets}})
    for missing in ENTRY:
        yield f"an unknown field beside {missing}", pack({"a": ENTRY | {missing + "s": None}})
        yield f"no {missing}", pack({"a": {key: value for key, value in ENTRY.items() if key != missing}})
    for entry in (3, None, "x", [], True):
        yield f"entry {entry!r}", pack({"a": entry})
    second = ENTRY | {"data_offsets": [8, 16]}
    yield "an overlap", pack({"a": ENTRY, "b": ENTRY | {"data_offsets": [4, 12]}}, b"\0" * 12)
    yield "4 bits and no whole bytes", pack({"a": {"dtype": "F4", "shape": [3], "data_offsets": [0, 1]}}, b"\0")
    yield "the same span twice", pack({"a": ENTRY, "b": ENTRY})
    yield "a hole", pack({"a": ENTRY, "b": ENTRY | {"data_offsets": [12, 20]}}, b"\0" * 20)
    yield "a hole before the first", pack({"a": second}, b"\0" * 16)
    yield "bytes behind the end", pack({"a": ENTRY}, b"\0" * 9)
    yield "bytes missing", pack({"a": ENTRY, "b": second}, b"\0" * 12)
    yield "nothing at all", pack({}, b"")
    yield "metadata alone", pack({"__metadata__": {"k": "v"}}, b"")


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
        yield name, valid_file(shapes)


CORPUS = dict(case for kind in (lengths, texts, entries, containers, loras) for case in kind())
BAD_NUMBERS = {  # which are noticed when the numbers are read
    "an alpha that is no number": valid_file({DOWN: (4, 8), UP: (8, 4), ALPHA: ()}, float("nan")),
    "weights that are no numbers": valid_file({DOWN: (4, 8), UP: (8, 4)}, float("nan")),
    "infinite weights": valid_file({DOWN: (4, 8), UP: (8, 4)}, float("inf")),
    "weights of which products are infinite": valid_file({DOWN: (4, 8), UP: (8, 4)}, 1e30),
}
METADATA = {
    "code": "__import__('os').system('touch /tmp/x')",
    "HTML": "<img src=x onerror=alert(1)>",
    "terminal escapes": "\x1b[2J\x1b]0;title\x07",
    "a path": "../../../../etc/passwd\0",
    "right to left": "\u202etxt.exe",
    "deep JSON": "[" * 100_000,
    "JSON of another kind": '{"a": [1, {"b": null}]}',
    "a huge number": '{"x": {"tag": 1e400, "other": ' + "9" * 5000 + "}}",
}
METADATA_KEYS = (
    "ss_tag_frequency",
    "ss_datasets",
    "ss_network_module",
    "software",
    "modelspec.trigger_phrase",
    "unet",
    "text_encoder",
    "lora_adapter_metadata",
)
