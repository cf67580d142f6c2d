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
