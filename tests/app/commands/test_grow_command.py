"""``loradex grow`` on the command line: the plan, a killed run, errors in one line."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loradex.app.commands.main import app, main
from loradex.app.experts.training_steps import open_encoder
from loradex.app.growing.folder import WEIGHTS

SHORT = (
    "--count",
    "30",
    "--pictures-per-lora",
    "1",
    "--steps",
    "0",
    "--samples",
    "2",
    "--layers",
    "attn2.to_v,attn2.to_k",
)
WAIT = 240  # seconds, of a machine that does much else


def run(*arguments: object, status: int = 0) -> Result:
    done = CliRunner().invoke(app, ["grow", *map(str, arguments)])
    assert done.exit_code == status, done.output
    return done


def message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a run that fails."""
    monkeypatch.setattr(sys, "argv", ["loradex", "grow", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_plan(tmp_path: Path) -> None:
    plan = json.loads(run("mini-b", *SHORT, "--dry-run", "--folder", tmp_path / "none", "--json").stdout)
    assert (plan["family"], plan["loras"], plan["to_draw"], plan["to_grow"]) == ("mini-b", 30, 60, 30)
    assert plan["layers"] > 4 and plan["peak_bytes"] > 2**27
    assert not (tmp_path / "none").exists()


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    """After a SIGKILL the same command makes what is missing, and keeps what was made."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", "from loradex.app.commands.main import main; main()", "grow", "mini-b", *SHORT]
    command += ["--folder", str(folder), "--out", str(tmp_path / "encoder"), "--batch", "4", "--json"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as child:  # noqa: S603
        try:
            deadline = time.monotonic() + WAIT
            while len(made := sorted(folder.rglob(WEIGHTS))) < 2:
                assert child.poll() is None, "it ended before it was killed"
                assert time.monotonic() < deadline, "no LoRA was made in time"
                time.sleep(0.02)
        finally:
            child.kill()  # SIGKILL
    assert len(sorted(folder.rglob(WEIGHTS))) < 30
    before = {path: path.stat().st_mtime_ns for path in made}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603
    answer = json.loads(done.stdout)
    assert (answer["words"], answer["loras"], answer["family"]) == (30, 30, "mini-b")
    assert {path: path.stat().st_mtime_ns for path in made} == before
    assert len(sorted(folder.rglob(WEIGHTS))) == 30
    assert not list(folder.rglob("*.part"))
    assert Path(answer["expert"]).is_file() and Path(answer["contact_sheet"]).is_file()


def test_a_full_disk(tmp_path: Path) -> None:
    """A file that cannot be written ends in one line, and nothing half-written is left."""
    out = tmp_path / "encoder"
    open_encoder(out, None, ())
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
    command = [sys.executable, "-B", "-c", f"{limited}from loradex.app.commands.main import main; main()", "grow"]
    command += ["mini-b", *SHORT, "--folder", str(tmp_path / "run"), "--out", str(out)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )  # noqa: S603
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "run: expected a disk to write to, found: File too large; make room" in line
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {"grow.json"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("sdxl",), "sdxl: expected the path of a base model, or a family with a base model here (mini-a, mini-b), found neither"),
        (("x" * 300,), "found neither; `loradex grow PATH` takes a folder of diffusers or a checkpoint in one file"),
        (("mini-b", "--steps", "-1"), "--steps: expected 0 to 2000, found -1"),
        (("mini-b", "--layers", "nowhere"), "--layers: expected linear layers of UNet2DConditionModel with names that end in nowhere"),
        (("mini-b", "--pictures", "nowhere"), "--pictures: expected a folder, found: "),
        (("mini-b", "--words", "nowhere.txt"), "nowhere.txt: expected a UTF-8 text file"),
        (("mini-b", "--tree", "../x"), "--tree: expected a name"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(
    arguments: tuple[str, ...],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And how to mend it, before anything is written but the folder's settings."""
    monkeypatch.chdir(tmp_path)
    line = message(monkeypatch, capsys, *arguments, "--folder", tmp_path / "run", "--out", tmp_path / "encoder")
    assert expected in line
    assert not list((tmp_path / "run").rglob("*.png"))


def test_a_clip_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hours of growing are not begun if the text encoder of the space is missing in the end."""
    out = tmp_path / "encoder"
    run("mini-b", *SHORT, "--folder", tmp_path / "first", "--out", out)
    (out / "clip" / "open_clip_model.safetensors").unlink()
    line = message(monkeypatch, capsys, "mini-b", *SHORT, "--folder", tmp_path / "run", "--out", out)
    assert "found" in line and "loradex" in line
    assert not (tmp_path / "run").exists()
