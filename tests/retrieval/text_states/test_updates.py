"""States through a LoRA's own update of the text encoders, against diffusers' loader and against dense weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora import LayerUpdate, LoraFile
from loradex.retrieval.text_states import PromptEncoder
from tests.retrieval.text_states.conftest import Saved
from tests.retrieval.text_states.pipelines import encode

PROMPTS = ["a photo of a kozu dog", "", "wow! " * 50]
KOHYA = {"sd1": {"text_encoder": "lora_te"}, "sd2": {"text_encoder": "lora_te"}} | {
    "sdxl": {"text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
}


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a text encoder's blocks, by their names without ``text_model.``."""
    return {
        name.removeprefix("text_model."): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "encoder.layers" in name
    }


def save_kohya_lora(pipe: Any, family: str, path: Path) -> None:
    """Save a LoRA of all linear layers of all text encoders, as kohya's trainer does, and one layer of the U-Net."""
    torch.manual_seed(7)
    tensors: dict[str, Tensor] = {}
    for component, beginning in KOHYA[family].items():
        for name, layer in linear_layers(getattr(pipe, component)).items():
            module = f"{beginning}_text_model_{name.replace('.', '_')}"
            tensors[f"{module}.lora_down.weight"] = torch.randn(4, layer.in_features) * 0.1
            tensors[f"{module}.lora_up.weight"] = torch.randn(layer.out_features, 4) * 0.1
            tensors[f"{module}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_states_are_those_of_diffusers_with_the_lora(
    saved: Callable[[str], Saved], family: str, tmp_path: Path
) -> None:
    model, path = saved(family), tmp_path / "lora.safetensors"
    save_kohya_lora(model.pipe, family, path)
    updates = LoraFile.open(path).updates()
    encoder = PromptEncoder.load(model.file)
    tokens, before = encoder.tokenize(PROMPTS), encode(model.pipe, PROMPTS)
    dense = dense_weights(model.pipe, updates)
    with encoder.with_updates(updates) as left_out:
        states = encoder.states(tokens)
    assert left_out == ()
    model.pipe.load_lora_weights(path)
    try:
        expected = encode(model.pipe, PROMPTS)
    finally:
        model.pipe.unload_lora_weights()
    assert (expected - before).norm() > 0.05 * before.norm()
    torch.testing.assert_close(states, expected, atol=3e-5, rtol=0)
    torch.testing.assert_close(encoder.states(tokens), before, atol=1e-5, rtol=0)  # the hooks are gone
    for weight, original in dense:
        weight.data += original
    try:
        torch.testing.assert_close(states, encode(model.pipe, PROMPTS), atol=3e-5, rtol=0)
    finally:
        for weight, original in dense:
            weight.data -= original


def dense_weights(pipe: Any, updates: dict[str, LayerUpdate]) -> list[tuple[Tensor, Tensor]]:
    """The weight that each update belongs to, and the update as a dense matrix."""
    modules = {
        f"{component}.text_model.{name}": layer
        for component in ("text_encoder", "text_encoder_2")
        if hasattr(pipe, component)
        for name, layer in linear_layers(getattr(pipe, component)).items()
    }
    assert modules.keys() == updates.keys()
    return [(modules[name].weight, update.up @ update.down) for name, update in updates.items()]


def test_layers_that_are_not_added_are_named(saved: Callable[[str], Saved]) -> None:
    encoder = PromptEncoder.load(saved("sdxl").file)
    layer = "text_model.encoder.layers.{}.self_attn.q_proj"
    update = LayerUpdate(torch.randn(2, 128), torch.randn(128, 2))
    unknown = [
        f"text_encoder.{layer.format(3)}",
        "text_encoder.text_model.embeddings.token_embedding",
        "text_encoder.text_model.encoder.layers.0.mlp.fc3",
        "text_encoder_3.encoder.block.0.layer.0.SelfAttention.q",
    ]
    behind = [f"text_encoder.{layer.format(2)}", "text_encoder_2.text_projection"]  # the last of three layers
    unet = ["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"]
    tokens = encoder.tokenize(PROMPTS)
    with encoder.with_updates(dict.fromkeys(unknown + behind + unet, update)) as left_out:
        assert left_out == tuple(unknown)
        changed = encoder.states(tokens)
    assert torch.equal(changed, encoder.states(tokens))


def test_hostile_updates_are_refused_and_leave_nothing_behind(saved: Callable[[str], Saved]) -> None:
    encoder = PromptEncoder.load(saved("sd1").file)
    tokens = encoder.tokenize(PROMPTS)
    before = encoder.states(tokens)
    first, second = (f"text_encoder.text_model.encoder.layers.{number}.mlp.fc1" for number in (0, 1))
    fitting = LayerUpdate(torch.randn(2, 128), torch.randn(384, 2))
    wrong = {first: fitting, second: LayerUpdate(torch.randn(2, 96), torch.randn(384, 2))}
    message = r"layers\.1\.mlp\.fc1: expected an update of \(384, 128\), .* found \(384, 96\)"
    with pytest.raises(FileUnsupported, match=message), encoder.with_updates(wrong):
        pass
    for number in (torch.nan, torch.inf, 1e30):
        hostile = {first: LayerUpdate(fitting.down * number, fitting.up * number)}
        with encoder.with_updates(hostile), pytest.raises(FileCorrupt, match="expected finite states"):
            encoder.states(tokens)
    nothing = {first: LayerUpdate(fitting.down * 0, fitting.up)}
    with encoder.with_updates(nothing):
        assert torch.equal(encoder.states(tokens), before)
    assert torch.equal(encoder.states(tokens), before)
