"""``loradex train`` and ``loradex evaluate`` on a folder of LoRAs, and a training that is killed."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from loradex.app.experts.lora_training import train_lora_expert
from loradex.app.experts.training import train_expert
from loradex.app.experts.training_options import TrainOptions
from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported, QueryError
from tests.app.commands.test_cli import LORADEX, document, one_line, run

SHIPPED = sorted((MINIATURE / "models" / "mini-a").glob("*/*/*.safetensors"))
LAYERS = ",".join(f"up_blocks.{block}.attentions.0.transformer_blocks.0.attn2.to_v" for block in (0, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped LoRAs of one tree in one flat folder, and a broken file."""
    folder = tmp_path_factory.mktemp("loras")
    for number, path in enumerate(SHIPPED):
        shutil.copy(path, folder / f"{number}.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    return folder


def test_a_trained_expert_labels_and_is_evaluated(folder: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    trained = document("train", folder, "--out", encoder, "--layers", LAYERS, "--tree", "mine")
    assert trained["family"] == "mini-a"
    assert sum(trained["models"].values()) == len(SHIPPED)
    assert sorted(trained["layers"]) == sorted(LAYERS.split(","))
    assert not list(encoder.rglob("*.training"))
    labelled = run("label", SHIPPED[0], "--json", LORADEX_ENCODER=str(encoder))
    assert len(json.loads(labelled.stdout)["results"][0]["labels"]) == 5
    evaluated = json.loads(run("evaluate", folder, "--json", LORADEX_ENCODER=str(encoder)).stdout)
    assert evaluated["split"]["models_test_holdout"] == trained["models"]["test_holdout"]
    metric = evaluated["metrics"]["text_to_model_recall_at_5"]
    assert metric["value"] > metric["chance"]


def test_grown_files_and_likeness_join_in(folder: Path, tmp_path: Path) -> None:
    """Real LoRAs, as many that count as grown ones, and means of LoRAs whose labels are not looked at."""
    real, grown = tmp_path / "real", tmp_path / "grown" / "train"
    for number, path in enumerate(SHIPPED):
        place = real if number % 4 == 0 else grown / str(number)
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / f"{number}.safetensors")
    options = TrainOptions(
        layers=LAYERS, tree="mixed", grown=(grown.parent,), like=real, settings={"grown_weight": 0.5}
    )
    steps: set[str] = set()
    answer = train_lora_expert(real, tmp_path / "encoder", options, lambda step, done, total: steps.add(step))
    assert answer.grown + answer.grown_left_out == sum(number % 4 > 0 for number in range(len(SHIPPED)))
    assert answer.like == sum(number % 4 == 0 for number in range(len(SHIPPED)))
    assert {"reading", "fitting", "likeness"} <= steps
    assert not list((tmp_path / "encoder" / "experts").glob(".*"))
    expert = Encoder.load(tmp_path / "encoder").experts["mixed"]
    assert expert.provenance is not None
    assert expert.provenance.words > 0
    alone = train_expert(None, tmp_path / "alone", TrainOptions(layers=LAYERS, tree="alone", grown=(grown.parent,)))
    assert alone.models == {"train": len(SHIPPED) - answer.like}
    with pytest.raises(QueryError, match="--with"):
        train_expert(None, tmp_path / "alone", TrainOptions())
    with pytest.raises(QueryError, match="--like: expected --expert loradex"):
        train_lora_expert(real, tmp_path / "encoder", TrainOptions("probex", like=real))
    with pytest.raises(FileUnsupported, match="at least 8 LoRAs"):
        train_lora_expert(real, tmp_path / "encoder", TrainOptions(like=grown / "1"))


def test_killed_training_of_probes_continues(folder: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    command = [
        LORADEX,
        "train",
        folder,
        "--out",
        encoder,
        "--expert",
        "probex",
        "--layers",
        LAYERS.partition(",")[0],
        "--json",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"LORADEX_ENCODER": ""}
    ) as process:
        state, deadline = encoder / "experts" / ".mini-a.training", time.monotonic() + 200
        while not state.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert state.exists()
    assert not (encoder / "experts" / "mini-a.safetensors").exists()
    trained = document(*command[1:-1])
    assert trained["kind"] == "probex"
    assert not state.exists()
    assert Encoder.load(encoder).experts["mini-a"].layers == (LAYERS.partition(",")[0],)


def test_too_few_models_give_an_error_in_one_line(tmp_path: Path, folder: Path) -> None:
    shutil.copy(SHIPPED[0], tmp_path / "one.safetensors")
    assert "expected at least 20" in one_line(run("train", tmp_path, "--out", tmp_path / "encoder"))
    assert not (tmp_path / "encoder").exists()
    with pytest.raises(QueryError, match="nonsense"):
        train_lora_expert(folder, tmp_path / "encoder", TrainOptions(layers="nonsense"))
    for options in (
        TrainOptions(layers="0"),
        TrainOptions(tree="../other"),
        TrainOptions(tree=".."),
        TrainOptions(tree=""),
    ):
        with pytest.raises(QueryError, match="--layers" if options.layers == "0" else "--tree"):
            train_lora_expert(folder, tmp_path / "encoder", options)
    with pytest.raises(FileUnsupported, match="--labels"):
        train_lora_expert(tmp_path / "encoder", tmp_path, TrainOptions())
