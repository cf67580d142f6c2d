"""The commands of ``loradex base``."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loradex.app.bases.registry import registry_file
from loradex.app.commands.main import app
from tests.retrieval.base_model.base_files import write_checkpoint, write_folder


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "300")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["base", *map(str, arguments)])


def document(*arguments: object) -> dict[str, list[dict[str, object]]]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output + str(done.exception)
    parsed: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return parsed


def test_adding_listing_and_removing(tmp_path: Path) -> None:
    one, folder = write_checkpoint(tmp_path / "one.safetensors"), write_folder(tmp_path / "folder", "sdxl")
    added = document("add", one, folder)
    assert added["registry"] == str(registry_file()) and added["refused"] == []
    first = added["added"][0]
    assert {key: first[key] for key in ("path", "family", "kind", "parts", "size")} == {
        "path": str(one), "family": "sd1", "kind": "file", "parts": ["text_encoder", "unet", "vae"],
        "size": one.stat().st_size,
    }  # fmt: skip
    listed = document("list")["bases"]
    assert [(base["family"], base["source"], base["used"], base["state"]) for base in listed] == [
        ("mini-a", "ships", True, "ready"),
        ("mini-b", "ships", True, "ready"),
        ("sd1", "added", True, "ready"),
        ("sdxl", "added", True, "ready"),
    ]
    table = run("list").stdout
    assert "4 base models" in table and str(folder) in table and "text_encoder, unet, vae" in table
    one.unlink()
    gone = document("list")["bases"][2]
    assert gone["state"] == "moved or deleted" and f"moved or deleted: {one}" in str(gone["reason"])
    assert "moved or deleted" in run("list").stdout
    assert document("remove", "sd1")["removed"] == [str(one)]
    partly = run("remove", folder, "sd1")
    assert partly.exit_code == 3 and "sd1: expected a base model that was added, or its family" in partly.stderr
    assert run("remove", "sd1").exit_code == 1 and len(document("list")["bases"]) == 2


def test_exit_statuses_of_adding(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one.safetensors")
    (tmp_path / "old.ckpt").write_bytes(b"PK\x03\x04" + bytes(40))
    refused = run("add", tmp_path / "old.ckpt", "--json")
    assert refused.exit_code == 1 and "could run code" in refused.stderr
    assert json.loads(refused.stdout)["refused"][0]["file"] == str(tmp_path / "old.ckpt")
    assert run("add", one, tmp_path / "old.ckpt").exit_code == 3
    assert run("add").exit_code == 2
    registry_file().write_text("{")
    assert "expected the list of base models" in str(run("list").exception)


def test_finding(tmp_path: Path) -> None:
    nothing = run("add", "--find", "--json")
    assert nothing.exit_code == 1 and "found none; name a folder: `loradex base add --find FOLDER`" in nothing.stderr
    one = write_checkpoint(Path.home() / "ComfyUI" / "models" / "checkpoints" / "one.safetensors")
    other = write_folder(tmp_path / "disk" / "other", "sdxl")
    for number in range(12):
        (one.parent / f"{number}.ckpt").write_bytes(b"PK\x03\x04" + bytes(40))
    found = document("add", "--find", tmp_path / "disk")
    assert {base["path"] for base in found["added"]} == {str(one), str(other)}
    assert len(found["skipped"]) == 12 and (found["known"], found["copies"], found["complete"]) == ([], {}, True)
    again = run("add", "--find")
    assert again.exit_code == 0 and "1 base model known already" in again.stdout
    assert "2 more like that; --json lists all" in again.stdout
    assert document("add", "--find")["known"] == [str(one)]


def test_bases_of_the_environment_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_checkpoint(tmp_path / "one.safetensors")
    document("add", one)
    monkeypatch.setenv(
        "LORADEX_BASES", os.pathsep.join((f"sd1={write_folder(tmp_path / 'folder')}", f"sd2={tmp_path / 'none'}"))
    )
    listed = document("list")["bases"][2:]
    assert [(base["family"], base["source"], base["used"], base["state"]) for base in listed] == [
        ("sd1", "added", False, "ready"),
        ("sd1", "LORADEX_BASES", True, "ready"),
        ("sd2", "LORADEX_BASES", True, "unreadable"),
    ]
