"""Which captioned LoRAs ship, and which of their layers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loradex.app.experts.captioned_loras import find_captioned_loras
from scripts.miniature import ship_captioned
from scripts.miniature.caption_fleets import Group
from scripts.miniature.settings import Build

BLOCK = "unet.mid_block.attentions.0.transformer_blocks.0"
KEPT = (f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn2.to_v", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj")
DROPPED = (f"{BLOCK}.attn1.to_k", f"{BLOCK}.attn2.to_q", f"{BLOCK}.attn2.to_out.0")
FACTORS = ("lora.down.weight", "lora.up.weight")


def train(build: Build, fleet: str, index: int, kind: str, words: list[str]) -> dict[str, torch.Tensor]:
    recipe = {"index": index, "kind": kind, "trainer": "uniform", "rank": 2, "trains_text": False}
    recipe |= {"captions": [", ".join(words)], "words": words, "seed": 1}
    tensors = {f"{layer}.{factor}": torch.randn(2, 2) for layer in (*KEPT, *DROPPED) for factor in FACTORS}
    path = build / f"captions-{fleet}/test_holdout/model_idx_{index:04d}/pytorch_lora_weights.safetensors"
    path.parent.mkdir(parents=True)
    metadata = {"format": "pt", "base_model": "loradex-miniature/b", "prompt": words[0], "recipe": json.dumps(recipe)}
    save_file(tensors, path, metadata)
    return tensors


def test_fleets_take_turns_and_words_ship_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build, target = Build(tmp_path / "build"), tmp_path / "target"
    monkeypatch.setattr(ship_captioned, "SHIPPED", (Group("label", "uniform", 2, 3), Group("trigger", "uniform", 2, 1)))
    trained = {
        (fleet, index): train(build, fleet, index, kind, words)
        for fleet, index, kind, words in [
            ("b1", 0, "label", ["dog"]),
            ("b1", 1, "label", ["cat"]),
            ("b1", 2, "trigger", ["kozu"]),
            ("b1", 3, "label", ["sun"]),
            ("b2", 0, "label", ["dog"]),
            ("b2", 1, "label", ["red apple"]),
        ]
    }
    ship_captioned.ship_captioned(build, target)
    loras = find_captioned_loras(target / "captioned/mini-b")
    expected = [("b1", 0), ("b1", 1), ("b2", 1), ("b1", 2)]
    assert [lora.path.stem for lora in loras] == [f"{fleet}-{index:04d}" for fleet, index in expected]
    assert [lora.words for lora in loras] == [("dog",), ("cat",), ("red apple",), ("kozu",)]
    for lora, key in zip(loras, expected, strict=True):
        shipped = load_file(lora.path)
        assert set(shipped) == {f"{layer}.{factor}" for layer in KEPT for factor in FACTORS}
        assert all(torch.equal(tensor, trained[key][name]) for name, tensor in shipped.items())
        with safe_open(lora.path, "pt") as file:
            assert file.metadata() == {"format": "pt", "base_model": "loradex-miniature/b"}
