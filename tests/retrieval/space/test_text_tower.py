"""The text tower without open_clip, against open_clip."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.space.text_tower import TextTower

CLIP = MINIATURE / "encoder" / "clip"
SIZES = {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 2}
VISION = {"layers": 1, "width": 64, "head_width": 32, "image_size": 16, "patch_size": 8}
TEXTS = (
    "dog",
    "a slice of pizza, with ham & cheese",
    "Größe 你好 👍 it's 3&amp;4",
    "one word after another " * 8,  # more tokens than the context holds
    "!",
)


def save_clip(
    folder: Path, custom_text: bool = True, quick_gelu: bool = False, half: bool = False, **text: Any
) -> Path:
    """A CLIP with random weights, as people have it in a folder."""
    model: dict[str, Any] = {"embed_dim": 20, "quick_gelu": quick_gelu, "vision_cfg": VISION, "text_cfg": SIZES | text}
    torch.manual_seed(0)
    clip = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**model)
    with torch.no_grad():  # biases and norms begin at zero and one, which would hide a mistake
        for parameter in clip.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    state = {name: tensor.half() if half else tensor for name, tensor in clip.state_dict().items()}
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "open_clip_model.safetensors")
    write_config(folder, model | {"custom_text": custom_text})
    return folder


def write_config(folder: Path, model: object) -> None:
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": {}}))


def by_open_clip(folder: Path) -> torch.Tensor:
    """The unit vectors of ``TEXTS`` by open_clip alone."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    with torch.inference_mode():
        return model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS), normalize=True)


def by_tower(folder: Path) -> torch.Tensor:
    tower = TextTower.load(folder)
    assert tower
    with torch.inference_mode():
        return tower.encode_texts(TEXTS)


def test_it_agrees_on_the_shipped_clip() -> None:
    torch.testing.assert_close(by_tower(CLIP), by_open_clip(CLIP), atol=1e-6, rtol=0)


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_it_agrees_on_every_kind_of_plain_clip(tmp_path: Path, quick_gelu: bool, custom_text: bool, half: bool) -> None:
    folder = save_clip(tmp_path, custom_text, quick_gelu, half)
    torch.testing.assert_close(by_tower(folder), by_open_clip(folder), atol=1e-6, rtol=0)


def test_a_text_has_the_same_vector_alone_and_beside_longer_ones() -> None:
    tower = TextTower.load(CLIP)
    assert tower
    alone = torch.cat([tower.encode_texts([text]) for text in TEXTS])
    torch.testing.assert_close(alone, tower.encode_texts(TEXTS), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "text",
    [{"no_causal_mask": True}, {"pool_type": "last"}, {"mlp_ratio": 2.0}, {"ls_init_value": 0.1}, {"embed_cls": True}],
)
def test_other_towers_are_left_to_open_clip(tmp_path: Path, text: dict[str, Any]) -> None:
    folder = save_clip(tmp_path, **text)
    assert TextTower.load(folder) is None
    encoded = TextEncoder.load(f"local-dir:{folder}", ("{}",)).encode([text.lower() for text in TEXTS])
    torch.testing.assert_close(encoded, by_open_clip(folder), atol=1e-6, rtol=0)


def test_the_whole_clip_is_still_there_for_pictures_and_tools() -> None:
    encoder = TextEncoder.load(f"local-dir:{CLIP}", ("{}", "a drawing of {}"))
    texts = encoder.encode(["dog"])
    prompts = encoder.tokenizer(["dog", "a drawing of dog"]).to(encoder.device)
    with torch.inference_mode():
        expected = encoder.model.encode_text(prompts, normalize=True).mean(0, keepdim=True)
    torch.testing.assert_close(texts, torch.nn.functional.normalize(expected), atol=1e-6, rtol=0)


SHIPPED_MODEL = json.loads((CLIP / "open_clip_config.json").read_text())["model_cfg"]


@pytest.mark.parametrize(
    "model",
    [
        [],
        SHIPPED_MODEL | {"text_cfg": None},
        SHIPPED_MODEL | {"multimodal_cfg": {}},
        *(
            SHIPPED_MODEL | {"text_cfg": SHIPPED_MODEL["text_cfg"] | sizes}
            for sizes in (
                {"layers": 10**12},
                {"layers": 3},
                {"layers": 0},
                {"heads": 0},
                {"heads": 3},
                {"heads": "4"},
                {"width": 64},
                {"context_length": 31},
            )
        ),
    ],
    ids=str,
)
def test_configs_that_do_not_fit_are_refused(tmp_path: Path, model: object) -> None:
    write_config(tmp_path, model)
    (tmp_path / "open_clip_model.safetensors").symlink_to(CLIP / "open_clip_model.safetensors")
    assert TextTower.load(tmp_path) is None


def test_a_config_is_read_up_to_a_bound(tmp_path: Path) -> None:
    write_config(tmp_path, SHIPPED_MODEL)
    (tmp_path / "open_clip_model.safetensors").symlink_to(CLIP / "open_clip_model.safetensors")
    config = tmp_path / "open_clip_config.json"
    assert TextTower.load(tmp_path)
    config.write_text(" " * 2**20 + config.read_text())
    assert TextTower.load(tmp_path) is None


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    folder = save_clip(tmp_path)
    weights = folder / "open_clip_model.safetensors"
    state = load_file(weights)
    strange = state | {"text.cls_emb": torch.zeros(24)}
    for tensors in strange, {name: tensor for name, tensor in state.items() if name != "text.ln_final.bias"}:
        save_file(tensors, weights)
        assert TextTower.load(folder) is None
        with pytest.raises(CheckpointError, match="text encoder .*"):
            TextEncoder.load(f"local-dir:{folder}", ("{}",))
    weights.write_bytes(weights.read_bytes()[:1000])
    assert TextTower.load(folder) is None
    weights.unlink()
    assert TextTower.load(folder) is None
