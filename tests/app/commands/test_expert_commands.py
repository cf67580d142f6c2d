"""The commands of ``loradex expert``."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app
from loradex.app.paths import user_encoder
from loradex.retrieval.errors import CheckpointError, QueryError
from tests.app.sharing.small_experts import METRICS, put, small_expert


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["expert", *map(str, arguments)])


def document(*arguments: object) -> Any:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output + str(done.exception)
    return json.loads(done.stdout)


def test_an_expert_goes_from_one_home_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(small_expert(), user_encoder())
    file = tmp_path / "b.safetensors"
    exported = document("export", "shared-b", file)
    assert exported == {
        "file": str(file), "bytes": file.stat().st_size, "id": small_expert().id, "tree": "shared-b", "family": "mini-b",
        "space": "clip-c97d6726bfa5", "text_encoder": "local-dir:clip",
    }  # fmt: skip
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "other home"))
    added = document("add", file)
    assert added["id"] == exported["id"] and added["new_encoder"] and added["next"] == ["loradex index FOLDER"]
    own = {expert["tree"]: expert for expert in document("list")["experts"]}["shared-b"]
    assert own["id"] == exported["id"] and own["figures"] == METRICS.document() | {"measured_by": "claimed"}
    assert document("show", "shared-b")["id"] == document("show", file)["id"] == exported["id"]
    table = run("list").stdout
    assert "grown from 663 words, 20 steps, 48 samples, base mini-b 0123456789ab" in table
    assert "top 1 of held-out concepts 75.0% (n = 64), claimed" in table and exported["id"] in table
    assert "`loradex evaluate FOLDER` measures it here" in table
    shown = run("show", "shared-b").stdout
    assert "claimed: 64 LoRAs" in shown and exported["id"] in shown
    again = run("add", file)
    assert isinstance(again.exception, CheckpointError) and "nothing needs to be done" in str(again.exception)
    assert document("add", file, "--replace")["replaced"] == exported["id"]
    assert "Next: `loradex index FOLDER`" in run("add", file, "--replace").stdout
    assert isinstance(run("remove", "shared-b").exception, QueryError)
    assert document("remove", "shared-b", "--yes")["left"] == 0
    assert len(document("list")["experts"]) == 4


def test_names_cannot_control_the_terminal(tmp_path: Path) -> None:
    assert "\x1b" not in str(run("show", "\x1b[31m").exception) + str(run("remove", "\x1b[31m", "--yes").exception)
    assert run("add").exit_code == 2
    assert "expected a shared expert, found none" in str(run("add", tmp_path).exception)
