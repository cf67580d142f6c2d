"""The order of cloneofsimo's modules against the modules of the U-Net, and against a real file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import Format, LoraFile
from loradex.retrieval.lora.layer_names.cloneofsimo import unet_modules
from tests.retrieval.lora.models import meta_model, weight_shapes


def test_the_order_is_that_of_the_modules() -> None:
    """As registered in diffusers 0.11: down, up, then middle blocks; in a transformer block attn1, ff, attn2."""
    names = list(weight_shapes(meta_model("sd1")))
    blocks = dict.fromkeys(
        name.rpartition(".transformer_blocks")[0] for name in names if ".transformer_blocks." in name
    )
    blocks = sorted(blocks, key=lambda block: ["down", "up", "mid"].index(block.partition("_")[0]))
    inner = ("attn1.", "ff.net.0.", "attn2.")
    for parts, order in ((inner, unet_modules(True)), (inner[::2], unet_modules(False))):
        assert order == [
            f"unet.{name}"
            for block in blocks
            for part in parts
            for name in names
            if name.startswith(f"{block}.transformer_blocks.0.{part}")
        ]


def test_a_real_file_has_the_shapes_of_those_modules(shared_loras: Path) -> None:
    lora = LoraFile.open(shared_loras / "sd15-cloneofsimo-disney-rank1.safetensors")
    shapes = weight_shapes(meta_model("sd1"))
    unet = {name: shape for name, shape in lora.shapes.items() if not name.startswith("text_encoder")}
    assert len(unet) == 144
    assert unet == {name: tuple(shapes[name]) for name in unet}
    header = lora.header.load(["unet:5:down", "unet:5:up", "text_encoder:2:up", "text_encoder:2:down"])
    block = "down_blocks.0.attentions.0.transformer_blocks.0"
    updates = lora.updates([f"{block}.attn2.to_q", "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"])
    for update, name in zip(updates.values(), ("unet:5", "text_encoder:2"), strict=True):
        torch.testing.assert_close(update.up @ update.down, header[f"{name}:up"] @ header[f"{name}:down"])


@pytest.mark.parametrize(
    ("count", "metadata"),
    [
        (3, {"unet": '["CrossAttention"]'}),
        (128, {"unet": '["ResnetBlock2D", "CrossAttention"]'}),
        (144, {"unet": '["CrossAttention"]', "text_encoder": '["Other"]'}),
    ],
)
def test_unknown_orders_are_refused(tmp_path: Path, count: int, metadata: dict[str, str]) -> None:
    save_file(
        {f"unet:{i}:{half}": torch.ones(1, 1) for i in range(count) for half in ("down", "up")},
        tmp_path / "x",
        metadata,
    )
    with pytest.raises(FileUnsupported, match="in order"):
        LoraFile.open(tmp_path / "x")


def test_attention_alone_is_known_by_its_number_of_modules(tmp_path: Path) -> None:
    save_file(
        {f"unet:{i}:{half}": torch.ones(1, 1) for i in range(128) for half in ("down", "up")},
        tmp_path / "x",
        {"unet": json.dumps(["CrossAttention"])},
    )
    lora = LoraFile.open(tmp_path / "x")
    assert (lora.format, len(lora.layers), lora.family) == (Format.CLONEOFSIMO, 128, "unknown")
    assert lora.layers["mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"].module == "unet:127"
