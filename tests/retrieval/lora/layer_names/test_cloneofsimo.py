"""cloneofsimo's positions against a walk through real models as the trainer walks, and against a real file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import Format, LoraFile
from loradex.retrieval.lora.layer_names.cloneofsimo import name_positions
from tests.retrieval.lora.models import meta_model, weight_shapes

Modules = list[tuple[str, tuple[int, int]]]
FEED_FORWARD = ("GEGLU", "FeedForward")


def clip(width: int = 768, layers: int = 12) -> nn.Module:
    with torch.device("meta"):
        return CLIPTextModel(
            CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, vocab_size=8)
        )


def walk(model: nn.Module, classes: set[str], kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """The modules of some kinds below those of some classes, as the trainer finds them, with their names."""
    names = {module: name for name, module in model.named_modules()}
    for ancestor in model.modules():
        if type(ancestor).__name__ in classes:
            for module in ancestor.modules():
                if isinstance(module, kinds):
                    yield names[module], module


def counted(model: nn.Module, classes: set[str]) -> Modules:
    kinds = (nn.Linear, nn.Conv2d) if "ResnetBlock2D" in classes else (nn.Linear,)
    return [(n, (len(m.weight), m.weight[0].numel())) for n, m in walk(model, classes, kinds)]  # type: ignore[arg-type,union-attr]


def feed_forward_between(modules: Modules) -> Modules:
    """The modules as diffusers 0.11 registered them, with the feed-forward part of a block before attn2."""
    blocks: dict[str, int] = {}
    for name, _ in modules:
        blocks.setdefault(name.partition(".transformer_blocks.")[0], len(blocks))

    def place(item: tuple[str, tuple[int, int]]) -> tuple[int, int]:
        block, _, inner = item[0].partition(".transformer_blocks.0.")
        return blocks[block], ("attn1", "ff", "attn2").index(inner.partition(".")[0]) if inner else 0

    return sorted(modules, key=place)


def names_of(modules: Modules, classes: set[str], model: str = "unet") -> dict[str, str]:
    lists = {"unet": "", "text_encoder": ""} | {model: json.dumps(sorted(classes))}
    named = name_positions(
        {f"{model}:{i}": shape for i, (_, shape) in enumerate(modules)}, (lists["unet"], lists["text_encoder"])
    )
    assert named.doubts == []
    return named.paths


@pytest.mark.parametrize("family", ["sd1", "sd2"])
@pytest.mark.parametrize(
    "classes",
    [
        {"CrossAttention", "Attention", "GEGLU"},
        {"CrossAttention", "Attention"},
        {"CrossAttention", "Attention", "FeedForward"},
        {"BasicTransformerBlock"},
        {"CrossAttention", "Attention", "GEGLU", "ResnetBlock2D"},
    ],
)
def test_modules_of_the_u_net(family: str, classes: set[str]) -> None:
    modules = counted(meta_model(family), classes)
    for order in (modules, feed_forward_between(modules)):
        assert list(names_of(order, classes).values()) == [f"unet.{name}" for name, _ in order]


@pytest.mark.parametrize(
    ("there", "listed"),
    [
        ({"CLIPAttention"}, {"CLIPAttention"}),
        ({"CLIPAttention"}, {"CLIPSdpaAttention"}),
        ({"CLIPAttention"}, {"CLIPFlashAttention2"}),
        ({"CLIPEncoderLayer"}, {"CLIPEncoderLayer"}),
        ({"CLIPMLP"}, {"CLIPMLP"}),
        ({"CLIPAttention"}, set()),
    ],
)
def test_modules_of_the_text_encoder(there: set[str], listed: set[str]) -> None:
    for width, layers in ((768, 12), (1024, 23)):
        modules = counted(clip(width, layers), there)
        expected = [f"text_encoder.text_model.{name.removeprefix('text_model.')}" for name, _ in modules]
        assert list(names_of(modules, listed, "text_encoder").values()) == expected


def lora(path: Path, unet: Modules, encoder: Modules, metadata: dict[str, str]) -> LoraFile:
    tensors = {}
    for model, modules in (("unet", unet), ("text_encoder", encoder)):
        for i, (_, (out, width)) in enumerate(modules):
            tensors |= {f"{model}:{i}:up": torch.ones(out, 1), f"{model}:{i}:down": torch.ones(1, width)}
    save_file(tensors, path, metadata)
    return LoraFile.open(path)


CLASSES = {"CrossAttention", "Attention", "GEGLU"}


def test_a_class_of_unknown_order_is_doubted(tmp_path: Path) -> None:
    unet, encoder = counted(meta_model("sd1"), CLASSES), counted(clip(), {"CLIPAttention"})
    metadata = {"unet": json.dumps(sorted(CLASSES)), "text_encoder": '["CLIPRingAttention"]'}
    read = lora(tmp_path / "x", unet, encoder, metadata)
    assert (read.format, read.family, len(read.layers)) == (Format.CLONEOFSIMO, "sd1", 192)
    (doubt,) = read.problems
    assert "CLIPRingAttention (text_encoder) is not known" in doubt
    assert lora(tmp_path / "y", unet, encoder, metadata | {"text_encoder": '["CLIPSdpaAttention"]'}).problems == []


def test_what_fits_no_order_is_refused_with_what_is_unexpected(tmp_path: Path) -> None:
    unet, encoder = counted(meta_model("sd1"), CLASSES), counted(clip(), {"CLIPAttention"})
    swapped = [*unet[:5], unet[8], *unet[6:8], unet[5], *unet[9:]]
    narrow = [*unet[:-1], ("", (8 * 640, 640))]
    for modules, text_modules, reason in (
        (swapped, [], r"unet:5 of shape \(2560, 320\) .*attn2.to_k"),
        (narrow, [], r"unet:143 of shape \(5120, 640\) .*mid_block.*ff.net.0.proj"),
        (unet[:-1], [], "143 of Attention, CrossAttention, GEGLU"),
        (unet, [*encoder[:-1], ("", (768, 3072))], r"text_encoder:47 of shape \(768, 3072\) .*11.self_attn.out_proj"),
        (unet, encoder[:-2], "text_encoder: .*46 of CLIPSdpaAttention"),
        ([], [("", (512, 512))] * 1001, "text_encoder: .*1001 of"),
    ):
        with pytest.raises(FileUnsupported, match=reason):
            lora(
                tmp_path / "x",
                modules,
                text_modules,
                {"unet": json.dumps(sorted(CLASSES)), "text_encoder": '["CLIPSdpaAttention"]'},
            )


def test_missing_and_strange_positions_are_named() -> None:
    shapes = {f"unet:{i}": shape for i, (_, shape) in enumerate(counted(meta_model("sd1"), CLASSES)) if i != 7}
    with pytest.raises(FileUnsupported, match="143 without unet:7;"):
        name_positions(shapes, ("", ""))
    with pytest.raises(FileUnsupported, match="found 'vae:0'"):
        name_positions({"vae:0": (4, 4)}, ("", ""))
    with pytest.raises(FileUnsupported, match="without unet:0;"):
        name_positions({"unet:00": (4, 4)}, ("", ""))


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
    with pytest.raises(FileUnsupported, match="in order"):
        lora(tmp_path / "x", [("", (1, 1))] * count, [], metadata)


def test_attention_alone_is_known_by_its_number_of_modules(tmp_path: Path) -> None:
    read = lora(tmp_path / "x", [("", (1, 1))] * 128, [], {"unet": json.dumps(["CrossAttention"])})
    assert (read.format, len(read.layers), read.family) == (Format.CLONEOFSIMO, 128, "unknown")
    assert read.layers["mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"].module == "unet:127"
