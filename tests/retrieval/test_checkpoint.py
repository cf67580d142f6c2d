"""Checkpoints: equal ones are equal files, whatever order safetensors gives their metadata, and none is left half."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint, save_tensors
from loradex.retrieval.errors import CheckpointError

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(3, dtype=torch.half), "none": torch.zeros(0, 4)}


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    metadata = {
        name: f'ä {name} \x01 "quoted" \\ \U0001f34e \u007f' for name in ("z", "format", "settings", "a", "m", "é")
    }
    contents = set()
    for number in range(8):
        path = tmp_path / f"{number}.safetensors"
        save_tensors(path, TENSORS, dict(reversed(metadata.items())) if number % 2 else metadata)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata
        for name, tensor in TENSORS.items():
            assert torch.equal(file.get_tensor(name), tensor) and file.get_tensor(name).dtype == tensor.dtype
    save_tensors(path, TENSORS, {})


def test_settings_come_back(tmp_path: Path) -> None:
    settings = {"name": "ä", "numbers": [1, 2.5, None]}
    save_checkpoint(tmp_path / "deep" / "one.safetensors", "kind-1", settings, TENSORS)
    loaded, tensors = load_checkpoint(tmp_path / "deep" / "one.safetensors", "kind-1")
    assert loaded == settings and tensors.keys() == TENSORS.keys()
    with pytest.raises(CheckpointError, match="expected format kind-2, found 'kind-1'"):
        load_checkpoint(tmp_path / "deep" / "one.safetensors", "kind-2")


FULL_DISK = """
import resource, sys, torch
from pathlib import Path
from loradex.retrieval.checkpoint import save_tensors
from loradex.retrieval.errors import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    save_tensors(Path(sys.argv[1]), {"a": torch.zeros(1000)}, {"format": "x"})
except CheckpointError as error:
    print(error)
"""


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    path.write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=True)
    assert "expected a place to write to" in done.stdout
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("one.safetensors", b"before")]
