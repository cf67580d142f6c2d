"""The list of captioned LoRAs."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loradex.app.experts.captioned_loras import MAX_BYTES, CaptionedLora, CaptionKind, find_captioned_loras
from loradex.retrieval.errors import FileMissing, FileUnsupported

ROW = {"file": "label/b1-0001.safetensors", "kind": "label", "captions": ["an icon of a dog"], "words": ["dog"]}


def write(folder: Path, document: Any) -> Path:
    raw = document.encode() if isinstance(document, str) else document
    (folder / "captions.json").write_bytes(raw if isinstance(raw, bytes) else json.dumps(raw).encode())
    return folder


def test_rows_become_captioned_loras_in_their_order(tmp_path: Path) -> None:
    second = {
        "file": "several/x.safetensors",
        "kind": "several",
        "captions": ["kozu, rød æble", "kozu, æble"],
        "words": ["kozu", "rød æble"],
        "trains_text": True,
        "rank": 4,
    }
    assert find_captioned_loras(write(tmp_path, [second, ROW])) == [
        CaptionedLora(
            tmp_path / "several/x.safetensors",
            CaptionKind.SEVERAL,
            ("kozu, rød æble", "kozu, æble"),
            ("kozu", "rød æble"),
            True,
        ),
        CaptionedLora(
            tmp_path / "label/b1-0001.safetensors", CaptionKind.LABEL, ("an icon of a dog",), ("dog",), False
        ),
    ]


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        (b'["\xed\xa0\x80"]', "can't decode"),
        ({}, "dict"),
        ([], "0 rows"),
        ([1], "the row 1"),
        ([{**ROW, "kind": "prompt"}], "'prompt' is not a valid CaptionKind"),
        ([{**ROW, "words": []}], "0 captions or words"),
        ([{**ROW, "words": ["x"] * 1001}], "1001 captions or words"),
        ([{**ROW, "words": [" "]}], "' ' among"),
        ([{**ROW, "captions": [3]}], "3 among"),
        ([{**ROW, "captions": "dog"}], "the row"),
        ([{**ROW, "captions": ["\ud800"]}], "surrogates not allowed"),
        ([{**ROW, "captions": ["x" * 1001]}], "xxx"),
        ([{**ROW, "trains_text": "yes"}], "trains_text: 'yes'"),
        ([{**ROW, "file": "../x.safetensors"}], "not below the folder"),
        ([{**ROW, "file": "/x.safetensors"}], "not below the folder"),
        ([{**ROW, "file": "C:\\x.safetensors"}], "not below the folder"),
        ([{**ROW, "file": "x\0"}], "not below the folder"),
        ([{**ROW, "file": "\ud800"}], "surrogates not allowed"),
        ([{**ROW, "file": ""}], "not below the folder"),
    ],
)
def test_another_list_is_refused_in_one_short_line(tmp_path: Path, document: Any, found: str) -> None:
    write(tmp_path, document)
    with pytest.raises(FileUnsupported, match="expected a list of 1 to 20,000") as raised:
        find_captioned_loras(tmp_path)
    message = str(raised.value)
    assert found in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(tmp_path))


def test_a_missing_and_a_huge_list_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match="captions.json: cannot be read"):
        find_captioned_loras(tmp_path)
    write(tmp_path, "")
    os.truncate(tmp_path / "captions.json", MAX_BYTES + 1)
    with pytest.raises(FileUnsupported, match="found more than 16 MiB"):
        find_captioned_loras(tmp_path)
