"""``loradex describe`` on the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app
from loradex.app.paths import MINIATURE
from tests.app.describe.samples import snapshot, write_lora

SCROLL = MINIATURE / "models" / "mini-a" / "test" / "model_idx_1304" / "pytorch_lora_weights.safetensors"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["describe", *map(str, arguments)])


def document(*arguments: object, status: int = 0) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == status, done.output
    return json.loads(done.stdout)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA that an expert reads, one of another family, and a broken one."""
    shutil.copy(SCROLL, tmp_path / "0.safetensors")
    write_lora(tmp_path / "1.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    return tmp_path


def test_a_dry_run_then_a_run_then_nothing_to_do(folder: Path) -> None:
    before = snapshot(folder)
    dry = document(folder, "--dry-run", status=3)
    assert snapshot(folder) == before
    assert [Path(refused["file"]).name for refused in dry["refused"]] == ["broken.safetensors"]
    done = document(folder, status=3)
    assert (dry["dry_run"], done["dry_run"], dry["files"]) == (True, False, done["files"])
    scroll, other = (json.loads(Path(file["target"]).read_text()) for file in done["files"])
    assert (scroll["tags"], scroll["base_model"], scroll["loradex"]["labels"][0]["label"]) == (
        ["scroll"],
        "Unknown",
        "scroll",
    )
    assert ("tags" in other, other["base_model"], other["loradex"]["label"]) == (False, "SD 1.5", "unknown")
    before = snapshot(folder)
    assert "nothing to change in 2 side-cars" in run(folder).stdout
    assert snapshot(folder) == before


def test_other_labels_change_what_was_written(folder: Path) -> None:
    (folder / "words.txt").write_text("penguin\nviolin\n")
    document(folder / "0.safetensors")
    (changed,) = document(folder / "0.safetensors", "--labels", folder / "words.txt", "--dry-run")["files"]
    changes = {change["field"]: (change["old"], change["new"]) for change in changed["changes"]}
    assert changes["tags"] == (["scroll"], None) and set(changes) == {"tags", "notes", "loradex"}


def test_cards(folder: Path) -> None:
    several = run(folder, "--as", "card")
    assert (
        several.exit_code == 1
        and several.stderr.count("expected a folder with one LoRA, found 3") == 2
        and several.stdout == ""
    )
    (folder / "alone").mkdir()
    alone = shutil.copy(SCROLL, folder / "alone")
    assert "1 of 1 cards change" in run(alone, "--as", "card").stdout
    assert (folder / "alone" / "README.md").read_text("utf-8").startswith("---\nlibrary_name: diffusers\n")
    assert run(folder, "--as", "nonsense").exit_code == 2
