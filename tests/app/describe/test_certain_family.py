"""The base model that side-cars name: only where the family is certain, and where nobody named another."""

import json
from pathlib import Path

import pytest

from loradex.app.describe.predictions import certain_family
from loradex.app.describe.side_cars import plan_side_car
from tests.app.describe.samples import PIZZA, write_lora


@pytest.mark.parametrize(
    ("layers", "metadata", "family", "base_model"),
    [
        ("sd1", {}, "sd1", "SD 1.5"),
        ("sd1", {"ss_base_model_version": "sd_1.5"}, "sd1", "SD 1.5"),
        ("sd1", {"ss_base_model_version": "sdxl_1.0"}, "unknown", "Unknown"),  # which the layers contradict
        ("sd1", {"modelspec__architecture": "Kolors/lora"}, "unknown", "Unknown"),
        ("unknown", {"ss_base_model_version": "sd_1.5"}, "unknown", "Unknown"),
        ("wan", {"modelspec__architecture": "wan2.1/lora"}, "wan", "Wan Video"),
    ],
)
def test_the_base_model_of_a_new_side_car(
    tmp_path: Path, layers: str, metadata: dict[str, str], family: str, base_model: str
) -> None:
    lora = write_lora(tmp_path / "x.safetensors", layers, **metadata)
    assert certain_family(lora) == family
    assert json.loads(plan_side_car(lora, PIZZA).after)["base_model"] == base_model


@pytest.mark.parametrize("side_car", ["x.metadata.json", "x.civitai.info"])
def test_a_base_model_that_somebody_named_stays(tmp_path: Path, side_car: str) -> None:
    lora = write_lora(tmp_path / "x.safetensors", ss_base_model_version="sd_1.5")
    key = "base_model" if side_car.endswith(".metadata.json") else "baseModel"
    (tmp_path / side_car).write_text(json.dumps({key: "Pony"}), "utf-8")
    assert json.loads(plan_side_car(lora, PIZZA).after)["base_model"] == "Pony"
