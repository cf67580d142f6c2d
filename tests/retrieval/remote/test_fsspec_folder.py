"""LoRAs of file systems that fsspec knows: vectors of whole files from a part of their bytes, and faults."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import load_file, save_file

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FetchError, FileCorrupt, FileUnsafe, FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.remote import FsspecFolder, RemoteModel, fsspec_folder, header, is_remote, open_folder, ranges
from loradex.retrieval.router import Router
from tests.hub import save_lora, sd1_shapes
from tests.retrieval.remote.hub_loras import SHIPPED, assert_same_as_local
from tests.retrieval.test_router import SPACE, expert_of, updates


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """A folder with three LoRAs, and with a hidden one, a model card and a link back to the folder."""
    folder = tmp_path / "loras"
    for number, path in enumerate(SHIPPED):
        target = folder / f"icons/{number}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(SHIPPED[0], folder / ".hidden.safetensors")
    (folder / "icons" / "README.md").write_text("card")
    (folder / "icons" / "loop").symlink_to(folder, target_is_directory=True)
    return folder


@pytest.fixture
def memory(loras: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same LoRAs in a file system in memory; its address."""
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    for path in (loras / "icons").glob("*.*"):
        fsspec.filesystem("memory").pipe_file(f"/bucket/icons/{path.name}", path.read_bytes())
    yield "memory://bucket"
    MemoryFileSystem.clear_instance_cache()


def read(folder: FsspecFolder, encoder: Encoder, number: int = 0) -> RemoteModel:
    return folder.read(folder.files[number], encoder)


def test_models_equal_those_of_the_whole_files(loras: Path, memory: str, encoder: Encoder) -> None:
    for address in (f"file://{loras}", f"file://{loras}/", memory):
        folder = FsspecFolder.open(address)
        assert [file.path for file in folder.files] == [
            f"{address.rstrip('/')}/icons/{number}.safetensors" for number in range(3)
        ]
        assert len({file.id for file in folder.files}) == 3
        for number, path in enumerate(SHIPPED):
            assert_same_as_local(read(folder, encoder, number), path, encoder)


def test_only_what_an_expert_needs_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The expert reads two of 128 layers."""
    encoder = Encoder(tmp_path, SPACE, {}, Router({"tree-1": expert_of(1)}, {}))
    save_lora(tmp_path / "lora.safetensors", sd1_shapes(), 16, seed=0)
    tensors = load_file(tmp_path / "lora.safetensors")
    for layer, factors in updates(1, 1, seed=7).items():
        tensors |= {
            f"unet.{layer}.lora.down.weight": factors.down[0].contiguous(),
            f"unet.{layer}.lora.up.weight": factors.up[0].contiguous(),
        }
    save_file(tensors, tmp_path / "lora.safetensors")
    read_sizes: list[int] = []
    cat = LocalFileSystem.cat_file
    monkeypatch.setattr(
        LocalFileSystem,
        "cat_file",
        lambda self, path, start, end: read_sizes.append(end - start) or cat(self, path, start, end),
    )
    model = read(FsspecFolder.open(f"file://{tmp_path}"), encoder)
    assert model.vector is not None
    torch.testing.assert_close(
        model.vector, encoder.encode_file(LoraFile.open(tmp_path / "lora.safetensors")), rtol=0, atol=1e-6
    )
    assert model.received == sum(read_sizes) < 0.01 * (tmp_path / "lora.safetensors").stat().st_size


def test_one_file_by_its_address(memory: str, encoder: Encoder) -> None:
    folder = open_folder(f"{memory}/icons/1.safetensors")
    (file,) = folder.files
    assert file.path == f"{memory}/icons/1.safetensors"
    assert file.id == open_folder(memory).files[1].id


def test_the_stamp_changes_with_the_file(memory: str) -> None:
    before = FsspecFolder.open(memory).files
    assert FsspecFolder.open(memory).files == before
    fsspec.filesystem("memory").pipe_file("/bucket/icons/1.safetensors", SHIPPED[2].read_bytes())
    after = FsspecFolder.open(memory).files
    assert [old.stamp == new.stamp for old, new in zip(before, after, strict=True)] == [True, False, True]
    assert [file.id for file in before] == [file.id for file in after]


def test_scales_come_from_the_peft_config_beside_the_file(tmp_path: Path, encoder: Encoder) -> None:
    target = tmp_path / "peft" / "adapter_model.safetensors"
    target.parent.mkdir()
    tensors = {
        name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): tensor
        for name, tensor in load_file(SHIPPED[0]).items()
    }
    save_file(tensors, target)
    target.with_name("adapter_config.json").write_text(
        json.dumps({"lora_alpha": 4, "r": 2, "alpha_pattern": {"attn2.to_v": 40}})
    )
    folder = FsspecFolder.open(f"file://{tmp_path}")
    only = folder.only(folder.files[0])
    assert (only.files, list(only.peft_configs)) == (folder.files, ["peft/adapter_config.json"])
    vector = read(only, encoder).vector
    assert vector is not None
    torch.testing.assert_close(vector, encoder.encode_file(LoraFile.open(target)), rtol=0, atol=1e-6)


def test_bad_files_are_named(memory: str, encoder: Encoder) -> None:
    raw = SHIPPED[0].read_bytes()
    bad = {
        "pickle": (b"\x80\x02}q\x00." * 50, FileUnsafe),
        "short": (raw[:-10], FileCorrupt),
        "long": (raw + b"more", FileCorrupt),
        "empty": (b"", FileCorrupt),
    }
    for name, (content, kind) in bad.items():
        fsspec.filesystem("memory").pipe_file(f"/bad/{name}.safetensors", content)
        with pytest.raises(kind, match=f"^memory://bad/{name}.safetensors: "):
            read(FsspecFolder.open(f"memory://bad/{name}.safetensors"), encoder)


def failing(times: int, error: Exception) -> Callable[..., bytes]:
    """A ``cat_file`` that fails ``times`` times."""
    cat, remaining = MemoryFileSystem.cat_file, [times]

    def cat_file(self: MemoryFileSystem, path: str, start: int, end: int) -> bytes:
        remaining[0] -= 1
        if remaining[0] >= 0:
            raise error
        return bytes(cat(self, path, start, end))

    return cat_file


@pytest.mark.parametrize("error", [OSError("broken pipe"), TimeoutError(), RuntimeError("of a library")])
def test_faults_that_may_pass_are_retried(
    memory: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    folder = FsspecFolder.open(memory)
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing(ranges.TRIES - 1, error))
    assert read(folder, encoder).vector is not None
    monkeypatch.setattr(MemoryFileSystem, "cat_file", failing(ranges.TRIES, error))
    with pytest.raises(FetchError, match=f"found after {ranges.TRIES} tries"):
        read(folder, encoder)


def test_a_missing_or_changed_file_is_refused_without_retries(
    memory: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = FsspecFolder.open(memory)
    fsspec.filesystem("memory").pipe_file("/bucket/icons/1.safetensors", SHIPPED[1].read_bytes()[:20])
    with pytest.raises(FetchError, match="the file changed"):
        read(folder, encoder, 1)
    fsspec.filesystem("memory").rm_file("/bucket/icons/0.safetensors")
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("waited for a file that does not exist"))
    with pytest.raises(FetchError, match="expected a file that may be read"):
        read(folder, encoder)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense://bucket", "an address that fsspec reads, found: Protocol not known"),
        ("memory://nothing-there", "cannot be listed"),
        ("zip://x.safetensors::memory://bucket/a.zip", "addresses in one another"),
        ("s3://key:secret@host/bucket", "expected none with a password"),
        ("s3://key:sec/secret@bucket/x", "expected none with a password"),
        ("https://secret@host/x", "expected none with a password"),
        ("https://host/x?token=secret", "expected none with a password"),
        ("memory://bucket/icons/9.safetensors", "expected .safetensors files, found none"),
    ],
)
def test_invalid_addresses_are_refused_in_one_line(memory: str, address: str, message: str) -> None:
    assert is_remote(address)
    with pytest.raises(FetchError, match=message) as caught:
        open_folder(address)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the message of fsspec itself."""
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(
        FetchError,
        match="expected a package that reads s3://, found none: Install s3fs to access S3; install it with pip",
    ):
        FsspecFolder.open("s3://bucket/loras")


NAMES = ("/bucket/x\u202e.safetensors", f"/bucket/{'x' * 1001}.safetensors")


@pytest.mark.parametrize(
    "entry", [*({"size": size} for size in (None, -1, "9", True, 2**63)), *({"name": name} for name in NAMES)]
)
def test_invalid_listings_are_refused(memory: str, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]) -> None:
    listed = {"name": "/bucket/a.safetensors", "size": 9, "type": "file"} | entry
    monkeypatch.setattr(MemoryFileSystem, "ls", lambda self, path, detail=True: [listed])
    with pytest.raises(FetchError, match="expected a (size|name)"):
        FsspecFolder.open(memory)


def test_bounds(memory: str, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsspec_folder, "MAX_FILES", 2)
    with pytest.raises(FetchError, match="expected at most 2 .safetensors files, found 3"):
        FsspecFolder.open(memory)
    monkeypatch.setattr(fsspec_folder, "MAX_ENTRIES", 3)
    with pytest.raises(FetchError, match="expected at most 3 files, found more"):
        FsspecFolder.open(memory)
    monkeypatch.undo()
    monkeypatch.setattr(header, "MAX_DATA_BYTES", 10)
    fsspec.filesystem("memory").pipe_file("/one/a.safetensors", SHIPPED[0].read_bytes())
    with pytest.raises(FileUnsupported, match="expected at most 10 bytes to read"):
        read(FsspecFolder.open("memory://one"), encoder)


def test_what_is_remote() -> None:
    assert [
        is_remote(path) for path in ("hf://a/b", "s3://x", "file:///x", "C:\\loras", "/srv/a://b", "loras", "C://x")
    ] == [True] * 3 + [False] * 4
