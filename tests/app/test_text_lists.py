"""A person's list of words is read within bounds."""

import os
from pathlib import Path

import pytest

import loradex.app.text_lists
from loradex.app.text_lists import read_lines
from loradex.retrieval.errors import QueryError


def test_one_word_a_line_each_once(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeff kozu \r\n\r\nred dog\ncaf\u00e9\nkozu\n".encode())
    assert read_lines(path, "word") == ["kozu", "red dog", "café"]


def test_files_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loradex.app.text_lists, "MAX_BYTES", 2**20)
    contents = {"empty": b"\n \n", "latin": b"caf\xe9\n", "large": b"word\n" * 2**18}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in (*contents, "folder", "pipe", "missing"):
        with pytest.raises(QueryError, match=f"{name}: expected") as error:
            read_lines(tmp_path / name, "word")
        assert "\n" not in str(error.value)
