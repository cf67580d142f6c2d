"""The commands of ``loradex zoo``."""

import json
import logging
import shutil
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app, main
from loradex.app.paths import SHIPPED_ZOO
from loradex.index import Zoo, opening
from loradex.index.sqlite import schema


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["zoo", *map(str, arguments)])


def document(*arguments: object) -> dict[str, object]:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    parsed: dict[str, object] = json.loads(done.stdout)
    return parsed


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A copy of the shipped zoo."""
    document("copy", tmp_path / "zoo", "--zoo", "miniature")
    return tmp_path / "zoo"


def test_a_copy_is_complete(zoo: Path) -> None:
    assert document("verify", "--zoo", zoo) == {"zoo": str(zoo), "models": 300, "problems": []}
    assert len(list((zoo / "previews").iterdir())) == len(list((SHIPPED_ZOO / "previews").iterdir()))
    assert "expected no zoo yet" in str(run("copy", zoo, "--zoo", "miniature").exception)


def test_listing_and_showing(zoo: Path) -> None:
    listed = document("list", "--family", "mini-b", "--rank", "4", "--zoo", zoo)["models"]
    assert isinstance(listed, list) and listed
    assert all(model["family"] == "mini-b" and model["facts"]["ranks"] == [4] for model in listed)
    shown = document("show", listed[0]["id"], "--zoo", zoo)["models"]
    assert isinstance(shown, list) and shown[0]["name"] == listed[0]["name"]
    assert listed[0]["id"] in run("show", listed[0]["id"], "--zoo", zoo).stdout
    assert "mini-b" in run("list", "--zoo", zoo).stdout


def test_removing(zoo: Path) -> None:
    with Zoo.open(zoo, read_only=True) as opened:
        first, second = [model.id for model in opened.models()][:2]
    assert document("remove", first, "--zoo", zoo)["removed"] == 1
    partly = run("remove", second, "nobody", "--zoo", zoo)
    assert partly.exit_code == 3 and "expected a model 'nobody'" in partly.stderr
    assert run("remove", "nobody", "--zoo", zoo).exit_code == 1
    assert document("verify", "--zoo", zoo)["models"] == 298


def test_export_and_import(zoo: Path, tmp_path: Path) -> None:
    assert document("export", tmp_path / "all.parquet", "--zoo", zoo)["models"] == 300
    assert document("import", tmp_path / "all.parquet", "--zoo", tmp_path / "other")["models"] == 300
    with Zoo.open(zoo, read_only=True) as original, Zoo.open(tmp_path / "other", read_only=True) as other:
        assert list(original.models()) == list(other.models())
        ids = [model.id for model in original.models()]
        mine, theirs = original.positions_by_id(ids), other.positions_by_id(ids)
        assert mine.keys() == theirs.keys() == set(ids)
        for id in ids:
            for kind, position in mine[id].items():
                again = theirs[id][kind]
                assert (position.scale, position.bias) == (again.scale, again.bias)
                assert (position.vector == again.vector).all()


def test_rebuilding_compacting_and_verifying_a_lost_preview(zoo: Path) -> None:
    assert document("rebuild", "--engine", "codes", "--zoo", zoo)["taken_out"] == []
    assert (zoo / "engine").is_dir()
    compacted = document("compact", "--zoo", zoo)
    assert int(str(compacted["bytes"])) <= int(str(compacted["bytes_before"])) + 2**20
    next((zoo / "previews").iterdir()).unlink()
    verified = run("verify", "--zoo", zoo)
    assert verified.exit_code == 1 and "1 problems" in " ".join(verified.stdout.split())


DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("command", ["list", "verify", "copy", "export"])
def test_reading_commands_migrate_a_zoo(tmp_path: Path, version: int, command: str) -> None:
    old = shutil.copytree(DATA / f"zoo-v{version}", tmp_path / "zoo")
    target = [tmp_path / "target"] if command in ("copy", "export") else []
    done = run(command, *target, "--zoo", old)
    assert (done.exit_code, done.stderr) == (0, ""), done.exception
    Zoo.open(old, read_only=True).close()


def test_a_long_migration_is_one_line_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(connection: sqlite3.Connection, path: Path) -> None:
        time.sleep(0.2)

    old = shutil.copytree(DATA / "zoo-v3", tmp_path / "zoo")
    monkeypatch.setattr(opening, "LONG", 0.01)
    monkeypatch.setattr(schema, "rewrite_words", slow)
    monkeypatch.setattr(sys, "argv", ["loradex", "zoo", "list", "--json", "--zoo", str(old)])
    monkeypatch.setattr(logging.getLogger("loradex"), "handlers", [])
    with pytest.raises(SystemExit, match="^0$"):
        main()
    printed = capsys.readouterr()
    assert printed.err == f"loradex: {old}: migrating the zoo, which an earlier Loradex wrote; this happens once\n"
    assert len(json.loads(printed.out)["models"]) == 4
