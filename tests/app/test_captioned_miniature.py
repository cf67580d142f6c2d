"""The shipped LoRAs whose captions are known."""

import json
from collections import Counter

from safetensors import safe_open

from loradex.app.experts.captioned_loras import CAPTIONS_FILE, CaptionKind, find_captioned_loras
from loradex.app.paths import MINIATURE
from loradex.retrieval.lora import LoraFile

FOLDER = MINIATURE / "captioned" / "mini-b"


def test_all_kinds_ship_of_ranks_2_to_32_and_two_trainers() -> None:
    loras, rows = find_captioned_loras(FOLDER), json.loads((FOLDER / CAPTIONS_FILE).read_text("utf-8"))
    assert len(loras) == len(set(FOLDER.rglob("*.safetensors"))) >= 60
    assert set(Counter(lora.kind for lora in loras)) == set(CaptionKind)
    assert {row["rank"] for row in rows} >= {2, 4, 8, 16, 32}
    assert {row["trainer"] for row in rows} == {"normal", "uniform"}
    assert any(lora.trains_text for lora in loras)
    held_out = {
        concept["label"]
        for concept in json.loads((MINIATURE / "concepts.json").read_text("utf-8"))
        if concept["split"] == "heldout"
    }
    for lora in loras:
        assert all(word in caption for caption in lora.captions for word in lora.words)
        assert lora.kind != CaptionKind.LABEL or set(lora.words) <= held_out


def test_their_headers_say_nothing_of_captions() -> None:
    """Words are read from weights, or not at all."""
    for lora, row in zip(
        find_captioned_loras(FOLDER), json.loads((FOLDER / CAPTIONS_FILE).read_text("utf-8")), strict=True
    ):
        with safe_open(lora.path, "pt") as file:
            assert file.metadata() == {"format": "pt", "base_model": "loradex-miniature/b"}
        opened = LoraFile.open(lora.path)
        assert (opened.family, opened.ranks) == ("mini-b", [row["rank"]])
        in_unet = [layer for layer in opened.shapes if layer.endswith((".attn2.to_k", ".attn2.to_v"))]
        assert len(in_unet) == 14 and (len(in_unet) < len(opened.shapes)) == lora.trains_text
