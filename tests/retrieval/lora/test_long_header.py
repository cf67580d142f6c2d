"""Long headers: read as safetensors reads them, in little more memory than their bytes."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from loradex.retrieval.errors import FileCorrupt, FileError, FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora import layout as layout_module
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.long_metadata import MAX_TAGS
from tests.retrieval.lora.hostile_files import DOWN, ENTRY, UP, pack, valid_file

CAPTIONS = {f'caption {i}, "quoted" \\ größe 👩 \u2028': 1 + i % 7 for i in range(20_000)}
MAX_EXTRA_BYTES = 20 * 2**20


@pytest.fixture
def always_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small headers are read as long ones are."""
    monkeypatch.setattr(layout_module, "MAX_PARSED_BYTES", 0)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("first", [True, False])
def test_a_long_header_shows_what_a_short_one_shows(tmp_path: Path, ascii_only: bool, first: bool) -> None:
    metadata = {
        "ss_tag_frequency": json.dumps({"5_zxc girl": CAPTIONS, "2_more": {"caption 6": 9}}, ensure_ascii=ascii_only),
        "ss_datasets": json.dumps(
            [
                {
                    "subsets": [{"class_tokens": 'q "x"', "is_reg": False}, {"class_tokens": "girl", "is_reg": True}],
                    "tag_frequency": {"5_zxc girl": CAPTIONS},
                }
            ]
        ),
        "modelspec.description": "größe " * 400_000,
        "modelspec.thumbnail": "data:image/jpeg;base64," + "A" * 3_000_000,
        "ss_output_name": "big",
    }
    raw = valid_file({DOWN: (4, 8), UP: (8, 4)})
    end = 8 + int.from_bytes(raw[:8], "little")
    tensors = json.loads(raw[8:end])
    header = {"__metadata__": metadata} | tensors if first else tensors | {"__metadata__": metadata}
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(json.dumps(header, ensure_ascii=ascii_only).encode(), raw[end:]))
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
    lora = LoraFile.open(path)
    assert lora.header.metadata.keys() == metadata.keys()
    assert sum(map(len, lora.header.metadata.values())) < 100_000
    assert lora.facts.title == "big"
    assert lora.facts.trigger_words == ('q "x"',)
    counted = sorted(CAPTIONS.items(), key=lambda item: -item[1])
    assert lora.facts.tags[0] == "caption 6"  # of the second folder
    assert lora.facts.tags[1] == counted[0][0].replace("\u2028", "").strip()
    frequency = json.loads(lora.header.metadata["ss_tag_frequency"])
    assert frequency["5_zxc girl"] == dict(counted[:MAX_TAGS])
    assert (lora.facts.notes or "").startswith("größe größe")
    assert list(lora.updates())


MEASURE = """
import resource, sys
from loradex.retrieval.lora import LoraFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
lora = LoraFile.open(sys.argv[1])
print(len(lora.facts.tags), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_a_long_header_takes_little_more_memory_than_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    value = '{"5_big": {' + ", ".join(f'"caption number {i} 👩 of many": {i % 9}' for i in range(250_000)) + "}}"
    path.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}, metadata={"ss_tag_frequency": value}))
    size = path.stat().st_size
    assert size > 8 * 2**20
    result = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    tags, memory = map(int, result.stdout.split())
    assert tags == 50
    assert memory < size + MAX_EXTRA_BYTES


def test_metadata_at_the_end_and_between(tmp_path: Path, always_long: None) -> None:
    second = ENTRY | {"data_offsets": [8, 16]}
    path = tmp_path / "x.safetensors"
    for header in (
        {"a": ENTRY, "__metadata__": {"k": "v"}, "b": second},
        {"a": ENTRY, "b": second, "__metadata__": {"k": "v"}},
        {"__metadata__": {"k": "v"}, "a": ENTRY, "b": second},
    ):
        path.write_bytes(pack(header, b"\0" * 16))
        read = Header.read(path)
        assert (read.metadata, list(read.tensors)) == ({"k": "v"}, ["a", "b"])
    path.write_bytes(pack({"a": ENTRY, "__metadata__": None}))
    assert Header.read(path).metadata == {}
    path.write_bytes(pack({"__metadata__": {}}, b""))
    assert Header.read(path).metadata == {}


def test_a_short_and_a_long_reader_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change pieces of a valid header many times: both readers take the same, and nothing that safetensors refuses."""
    rng = random.Random(1)  # noqa: S311
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(3), "b": torch.ones(2)}, path, metadata={"k": 'v"\\é\n', "l": "x"})
    raw = path.read_bytes()
    end = 8 + int.from_bytes(raw[:8], "little")
    header, data = raw[8:end].rstrip(), raw[end:]
    pieces = [
        b'"__metadata__":{"k":"v"}',
        b'"__metadata__":null,',
        b'"\\ud800"',
        b"\\ud83d\\ude00",
        b"\xc3\xa9",
        b"\xff",
    ]
    pieces += [bytes([c]) for c in b',{}[]:01 \n\\"\x01u/']
    accepted = 0
    for _ in range(1000):
        changed = bytearray(header)
        for _ in range(rng.choice((1, 1, 2))):
            start = rng.randrange(len(changed))
            changed[start : start + rng.choice((0, 0, 1, 4))] = rng.choice(pieces)
        path.write_bytes(pack(bytes(changed), data))
        results: list[Any] = []
        for limit in (2**20, 0):
            monkeypatch.setattr(layout_module, "MAX_PARSED_BYTES", limit)
            try:
                read = Header.read(path)
                results.append((read.metadata, read.tensors))
            except FileError:
                results.append(None)
        assert results[0] == results[1], bytes(changed)
        if results[0] is not None:
            accepted += 1
            with safe_open(path, "pt") as file:
                assert (file.metadata() or {}) == results[0][0]
    assert accepted > 30


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        (b'{"__metadata__":{"k":1}}', FileCorrupt, "text for each entry"),
        (b'{"__metadata__":{"k":{"a":"b"}}}', FileCorrupt, "text for each entry"),
        (b'{"__metadata__":3}', FileCorrupt, "text for each entry"),
        (b'{"__metadata__":{"k":"v}}', FileCorrupt, "not valid JSON"),
        (b'{"__metadata__":{"k":', FileCorrupt, "not valid JSON"),
        (b'{"__metadata__":', FileCorrupt, "__metadata__"),
        (b'{"__metadata__":{"k":"v","k":"w"}}', FileCorrupt, "twice"),
        (b'{"__metadata__":{"k":"v"},}', FileCorrupt, "not valid JSON"),
        (b'{"__metadata__":{"k":"v"},"__metadata__":{}}', FileCorrupt, "found two"),
        (b'{"__metadata__":{"k":"\xff"}}', FileCorrupt, "not valid JSON"),
        (b'{"__metadata__":{"k":"\\ud800"}}', FileCorrupt, "not valid JSON"),
        (b'{"' + b"a" * (17 * 2**20) + b'":1}', FileUnsupported, "16 MiB of names"),
        (b'{"__metadata__":{"' + b"a" * (2**20 + 1) + b'":""}}', FileUnsupported, "entries of metadata"),
        (b'{"a":' + b"[" * 3_000_000 + b"]" * 3_000_000 + b"}", FileCorrupt, "not valid JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_a_long_header_may_not_hold(
    tmp_path: Path, always_long: None, header: bytes, error: type[FileError], message: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(pack(header, b""))
    with pytest.raises(error, match=message) as caught:
        Header.read(path)
    assert len(str(caught.value)) < len(str(path)) + 400


def test_more_entries_than_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, always_long: None) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {str(i): "x" for i in range(20_000)} | {"ss_output_name": "last"}
    path.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}, metadata=metadata))
    kept = Header.read(path).metadata
    assert len(kept) == 10_001
    assert kept["ss_output_name"] == "last"
    monkeypatch.setattr("loradex.retrieval.lora.long_header.MAX_ENTRIES", 20_000)
    with pytest.raises(FileUnsupported, match="20000 entries"):
        Header.read(path)


@pytest.mark.parametrize(
    "value",
    [
        '"' * 300_000,
        "\\" * 300_000,
        '{"a":' * 100_000,
        '{"a": {"' + "x" * 600_000,
        '{"a": {"\\q": 3, "b": 99999999999999999999, "\\ud800": 2, "c": 1}}' + " " * 600_000,
    ],
    ids=lambda value: value[:8],
)
def test_hostile_tags_in_a_long_header(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.safetensors"
    metadata = {"ss_tag_frequency": value * 2, "ss_datasets": value * 2}
    path.write_bytes(valid_file({DOWN: (4, 8), UP: (8, 4)}, metadata=metadata))
    facts = LoraFile.open(path).facts
    assert facts.tags in ((), ("?", "c"))
    assert facts.trigger_words == ()


@pytest.mark.parametrize("length", [100_000_000, 100_000_001])
def test_the_limit_is_that_of_safetensors(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(pack(b"{", b"", length))
        file.truncate(8 + length)
    with pytest.raises(SafetensorError) as theirs, safe_open(path, "pt"):
        pass
    with pytest.raises(FileError) as ours:
        Header.read(path)
    too_long = length > 100_000_000
    assert ("header too large" in str(theirs.value), "at most 100 MB" in str(ours.value)) == (too_long, too_long)
