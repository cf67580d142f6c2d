"""Paths in commands come back from a shell as they are."""

import os
import shlex
import subprocess

import pytest

from loradex.index.shell import quote_path

NAMES = ["plain", "two words", "it's", 'a "quoted" one', "$HOME; ls", "naïve 🍕", "back\\slash"]


@pytest.mark.parametrize("name", NAMES)
def test_a_shell_gives_the_path_back(name: str) -> None:
    assert shlex.split(quote_path(name)) == [name]
    if os.name != "nt":
        command = f"printf %s {quote_path(name)}"
        assert subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout.decode() == name


def test_windows_takes_double_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loradex.index.shell.os.name", "nt")
    assert quote_path(r"C:\My Files\loras") == r'"C:\My Files\loras"'
    assert quote_path(r"C:\loras") == r"C:\loras"
