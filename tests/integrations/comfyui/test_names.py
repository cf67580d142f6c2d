"""Paths of a server become names that loaders take: by path, then by name, folders and size."""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.integrations.comfyui.stand_ins import ComfyUI

ODD = "quote \" ' <b>🍕.safetensors"


@pytest.fixture
def loras(comfyui: ComfyUI, tmp_path: Path) -> Path:
    one, other = tmp_path / "loras", tmp_path / "extra"
    for path, size in {
        one / "a.safetensors": 10,
        one / "sub" / "deep" / "b.safetensors": 20,
        one / "x" / "pytorch_lora_weights.safetensors": 30,
        one / "y" / "pytorch_lora_weights.safetensors": 30,
        one / ODD: 40,
        other / "extra.safetensors": 50,
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b" " * size)
    comfyui.folders["loras"] = [one, other]
    return one


@pytest.fixture
def names(loras: Path, pack: ModuleType) -> Any:
    return import_module(f"{pack.__name__}.names").lora_names()


def test_paths_of_this_machine(names: Any, loras: Path) -> None:
    assert names.of_paths([str(loras / "a.safetensors")]) == "a.safetensors"
    assert names.of_paths(["/no/where", str(loras / "sub" / "deep" / "b.safetensors")]) == "sub/deep/b.safetensors"
    assert names.of_paths([str(loras.parent / "extra" / "extra.safetensors")]) == "extra.safetensors"
    assert names.of_paths([str(loras / ODD)]) == ODD
    assert names.of_paths([str(loras / "missing.safetensors"), ""]) is None


def test_links_lead_to_the_same_file(names: Any, loras: Path, comfyui: ComfyUI, pack: ModuleType) -> None:
    (loras / "link.safetensors").symlink_to("/far/away/model.safetensors")
    (loras / "z").symlink_to(loras / "sub")
    assert names.of_paths([str(loras / "sub" / "deep" / "b.safetensors")]) is not None
    again = import_module(f"{pack.__name__}.names").lora_names()
    assert again.of_paths([str(loras / "a.safetensors")]) == "a.safetensors"


@pytest.mark.parametrize(
    ("path", "size", "name"),
    [
        ("/srv/loras/a.safetensors", 10, "a.safetensors"),
        ("/srv/loras/a.safetensors", None, "a.safetensors"),
        ("/srv/loras/a.safetensors", 11, None),  # another file of the same name
        (r"D:\ComfyUI\models\loras\SUB\deep\B.safetensors", 20, "sub/deep/b.safetensors"),
        ("/srv/y/pytorch_lora_weights.safetensors", 30, "y/pytorch_lora_weights.safetensors"),
        ("/srv/elsewhere/pytorch_lora_weights.safetensors", 30, None),
        (f"/srv/{ODD}", 40, ODD),
        ("", None, None),
    ],
)
def test_paths_of_other_machines(names: Any, path: str, size: int | None, name: str | None) -> None:
    assert names.of_tail(path, size) == name


def test_one_name_in_two_folders_is_told_by_more_folders_or_not_at_all(
    loras: Path, comfyui: ComfyUI, pack: ModuleType
) -> None:
    (loras / "p").mkdir()
    (loras / "q").mkdir()
    for folder in "pq":
        (loras / folder / "same.safetensors").write_bytes(b"1")
    names = import_module(f"{pack.__name__}.names").lora_names()
    assert names.of_tail("/srv/q/same.safetensors", 1) == "q/same.safetensors"
    assert names.of_tail("/srv/same.safetensors", 1) is None


def test_both_slashes(names: Any) -> None:
    assert names.resolve(r"sub\deep\b.safetensors") == "sub/deep/b.safetensors"
    assert names.resolve("sub/deep/b.safetensors") == "sub/deep/b.safetensors"
    assert names.resolve("../a.safetensors") is None
