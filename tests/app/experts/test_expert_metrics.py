"""Figures of experts: claimed until measured here, read from files of earlier Loradexes as before."""

import json
import shutil
from pathlib import Path

import pytest

from loradex.app.experts.evaluation import evaluate_folder
from loradex.app.experts.expert_metrics import (
    CLAIMED,
    MEASURED,
    ExpertMetrics,
    load_metrics,
    metrics_path,
    note_measured,
)
from loradex.app.paths import MINIATURE, user_encoder
from loradex.app.web.about_tab import render_experts
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import CheckpointError
from tests.app.sharing.small_experts import ENCODER, METRICS, put, small_expert

CLAIM = ExpertMetrics("<b>64</b> LoRAs", METRICS.metrics, CLAIMED)


def test_files_of_earlier_loradexes_and_what_ships_are_measured() -> None:
    for path in (ENCODER / "experts").glob("*.safetensors"):
        metrics = load_metrics(path)
        assert metrics is not None and metrics.measured_by == MEASURED
        assert "measured_by" not in json.loads(metrics_path(path).read_text())


def test_saved_and_loaded(tmp_path: Path) -> None:
    for metrics in (METRICS, CLAIM):
        metrics.save(tmp_path / "e.safetensors")
        assert load_metrics(tmp_path / "e.safetensors") == metrics
    assert [path.name for path in tmp_path.iterdir()] == ["e.measured.json"]
    with pytest.raises(CheckpointError, match="expected a place to write to"):
        METRICS.save(tmp_path / "nothing" / "e.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{", "null", '{"on": "x"}', '{"metrics": {}}',
        '{"on": "x", "metrics": {"a": 1}}',
        '{"on": "x", "metrics": {"a": {"value": 1}}}',
        '{"on": "x", "metrics": {"a": {"value": 1, "n": NaN}}}',
        '{"on": "x", "metrics": {"a": {"value": 1e300, "n": 1}}}',
        '{"on": "x", "metrics": {"a": {"value": 1' + "0" * 400 + ', "n": 1}}}',
        '{"on": "x", "metrics": {"\\u001b": {"value": 1, "n": 1}}}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_other_files_count_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "e.measured.json").write_text(text)
    assert load_metrics(tmp_path / "e.safetensors") is None


def test_a_measurement_takes_the_place_of_a_claim_only(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    measured = {"zero_shot_top1_heldout": {"value": 0.5, "n": 8.0}, "other": {"value": 1.0, "n": 8.0}}
    CLAIM.save(path)
    assert note_measured(path, "8 LoRAs", measured)
    noted = {"zero_shot_top1_heldout": {"value": 0.5, "n": 8.0}}
    assert load_metrics(path) == ExpertMetrics("8 LoRAs", noted, MEASURED)
    assert not note_measured(path, "others", measured) and not note_measured(tmp_path / "new", "none", {"other": {}})
    assert note_measured(tmp_path / "unknown.safetensors", "8 LoRAs", measured)


def test_evaluating_turns_a_claim_into_a_measurement(tmp_path: Path) -> None:
    put(small_expert("far", layers=40), user_encoder())
    checkpoint = user_encoder() / "experts" / "far.safetensors"
    CLAIM.save(checkpoint)
    page = render_experts(Encoder.load(user_encoder()))
    assert "the expert’s own claim" in page and "&lt;b&gt;64" in page and "75.0" in page
    assert "grown from 663 words, 20 steps, 48 samples, base mini-b 0123456789ab" in page
    loras = tmp_path / "loras"
    for number, path in enumerate(sorted((MINIATURE / "models" / "mini-b").glob("test_holdout/*/*.safetensors"))[:6]):
        (loras / "test_holdout" / str(number)).mkdir(parents=True)
        shutil.copy(path, loras / "test_holdout" / str(number) / path.name)
    document = evaluate_folder(loras)
    assert document["tree"] in ("far", "mini-b")
    if document["tree"] == "far":
        assert document["noted"] == str(metrics_path(checkpoint))
    metrics = load_metrics(checkpoint)
    assert metrics is not None and metrics.measured_by == MEASURED and "held-out concepts in loras" in metrics.on
    assert metrics.metrics["zero_shot_top1_heldout"] == document["metrics"]["zero_shot_top1_heldout"]
    assert "own claim" not in render_experts(Encoder.load(user_encoder()))
    assert evaluate_folder(loras)["noted"] is None
