"""PEFT's config: the scales that it sets, and configs that are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora import LoraFile
from tests.retrieval.lora.lora_files import BLOCK, TO_Q, peft, random_factors


def test_the_config_scales_the_update(tmp_path: Path) -> None:
    factors = random_factors()
    save_file(peft(factors), tmp_path / "adapter_model.safetensors")
    for config, scale in ({"lora_alpha": 16}, 4.0), ({"lora_alpha": 16, "use_rslora": True}, 8.0), ({}, 1.0):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        update = LoraFile.open(tmp_path / "adapter_model.safetensors").updates()[f"{BLOCK}.attn1.to_q"]
        down, up = factors[f"{BLOCK}.attn1.to_q"]
        torch.testing.assert_close(update.up @ update.down, scale * up @ down)


def test_the_config_is_read_for_adapter_model_only(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "other.safetensors"):
        save_file(peft(random_factors()), tmp_path / name)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 12}))
    assert LoraFile.open(tmp_path / "adapter_model.safetensors").scale(TO_Q) == 3.0
    assert LoraFile.open(tmp_path / "other.safetensors").scale(TO_Q) == 1.0


def test_alpha_patterns_are_plain_names(tmp_path: Path) -> None:
    factors = random_factors()
    save_file(peft(factors), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"lora_alpha": 4, "alpha_pattern": {"attn1.to_q": 8, r"^down_blocks\.0.*to_k$": 12}})
    )
    lora = LoraFile.open(tmp_path / "adapter_model.safetensors")
    assert [lora.scale(layer) for layer in (TO_Q, f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn1.to_out.0")] == [2.0, 1.0, 1.0]
    assert lora.problems == ["alpha_pattern '^down_blocks\\\\.0.*to_k$' is a regular expression, which is not run"]


@pytest.mark.parametrize(
    "text",
    [
        "{nope",
        '{"lora_alpha": 1e999}',
        '{"lora_alpha": NaN}',
        '{"lora_alpha": "4"}',
        '{"lora_alpha": 1' + "0" * 400 + "}",
        "[" * 10**5,
    ],
)
def test_invalid_configs_are_refused(tmp_path: Path, text: str) -> None:
    save_file(peft(random_factors()), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(FileCorrupt, match="mend adapter_config.json"):
        LoraFile.open(tmp_path / "adapter_model.safetensors").updates()
