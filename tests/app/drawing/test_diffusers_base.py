"""Drawings of a tiny Stable Diffusion model and a LoRA, compared with those of diffusers."""

import json
import shutil
import string
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

from loradex.app.bases.changes import add_bases
from loradex.app.commands.main import app
from loradex.app.drawing.base_models import BaseModel, BaseModels
from loradex.app.drawing.cache import DrawingCache
from loradex.app.drawing.errors import BadBase, NoBase, Stopped
from loradex.app.drawing.options import DEFAULT_SEED, DrawOptions
from loradex.app.drawing.renderer import Renderer
from loradex.retrieval.lora import encoders, family

OPTIONS = DrawOptions("a cat", steps=3, guidance=4.0)


@dataclass(frozen=True)
class Tiny:
    """The folder of a base model, and a LoRA for it."""

    model: Path
    lora: Path


@pytest.fixture(autouse=True)
def known_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(family.UNETS, "tiny", family.UNet(24, (32, 64), (1, 0), 1))
    monkeypatch.setitem(encoders.TEXT_ENCODERS, "tiny", (encoders.Encoder(encoders.CLIP, 24, 12),))


def tokenizer(folder: Path) -> CLIPTokenizer:
    """One token a letter."""
    words = [
        *string.ascii_lowercase,
        *(f"{letter}</w>" for letter in string.ascii_lowercase),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=8)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=24,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    sizes = {
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 8,
    }
    text = CLIPTextModel(CLIPTextConfig(vocab_size=54, bos_token_id=52, eos_token_id=53, pad_token_id=53, **sizes))
    scheduler = DDIMScheduler(steps_offset=1, clip_sample=False)
    StableDiffusionPipeline(
        vae, text, tokenizer(folder), unet, scheduler, None, None, requires_safety_checker=False
    ).save_pretrained(folder / "model")
    target_modules = ["to_q", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "conv_shortcut"]
    unet.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=target_modules))
    text.add_adapter(LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["q_proj", "fc1"]))
    StableDiffusionPipeline.save_lora_weights(folder, get_peft_model_state_dict(unet), get_peft_model_state_dict(text))
    doubled = {
        name: tensor * (2 if "lora_B" in name else 1)
        for name, tensor in load_file(folder / "pytorch_lora_weights.safetensors").items()
    }
    save_file(doubled, folder / "lora.safetensors")
    return Tiny(folder / "model", folder / "lora.safetensors")


def make_renderer(model: Path, cache: Path) -> Renderer:
    return Renderer(BaseModels(BaseModel.from_path("tiny", model)), DrawingCache(cache))


def test_both_drawings_equal_those_of_diffusers(tiny: Tiny, tmp_path: Path) -> None:
    pair = make_renderer(tiny.model, tmp_path).draw(tiny.lora, OPTIONS)
    assert (pair.family, pair.warnings) == ("tiny", ())
    pipeline = StableDiffusionPipeline.from_pretrained(tiny.model, safety_checker=None)

    def draw() -> np.ndarray:
        output = pipeline(
            "a cat", num_inference_steps=3, guidance_scale=4.0, generator=torch.Generator().manual_seed(DEFAULT_SEED)
        )
        return np.asarray(output.images[0]).astype(float)

    drawn, base = np.asarray(pair.with_model.image).astype(float), draw()
    pipeline.load_lora_weights(tiny.lora.parent, weight_name=tiny.lora.name)
    np.testing.assert_array_equal(np.asarray(pair.without_model.image), base)
    np.testing.assert_allclose(drawn, draw(), atol=1)
    assert np.abs(drawn - base).mean() > 3


def test_a_stopped_drawing_does_not_change_the_next(tiny: Tiny, tmp_path: Path) -> None:
    renderer, stop = make_renderer(tiny.model, tmp_path / "a"), threading.Event()
    with pytest.raises(Stopped):
        renderer.draw(tiny.lora, OPTIONS, stop=stop, progress=lambda done, total: stop.set() if done == 4 else None)
    after, fresh = renderer.draw(tiny.lora, OPTIONS), make_renderer(tiny.model, tmp_path / "b").draw(tiny.lora, OPTIONS)
    assert after.without_model.cached and not after.with_model.cached
    assert after.with_model.image.tobytes() == fresh.with_model.image.tobytes()


def test_size_and_signature_of_a_changed_base(tiny: Tiny, tmp_path: Path) -> None:
    pair = make_renderer(tiny.model, tmp_path / "cache").draw(tiny.lora, DrawOptions(steps=1, size=64))
    assert (pair.with_model.image.size, pair.options.prompt) == ((64, 64), "a picture")
    weights = tiny.model / "unet" / "diffusion_pytorch_model.safetensors"
    before = BaseModel.from_path("tiny", tiny.model).signature
    weights.touch()
    assert BaseModel.from_path("tiny", tiny.model).signature != before


def test_folders_that_are_not_models_are_refused_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "unknown").mkdir()
    (tmp_path / "unknown" / "model_index.json").write_text('{"_class_name": "Evil", "unet": ["evil", "Evil"]}')
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "model_index.json").write_text(
        '{"_class_name": ["evil", "StableDiffusionPipeline"], "_diffusers_version": "0.38"}'
    )
    (tmp_path / "code" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for folder in ("none", "empty", "unknown", "code"):
        with pytest.raises(
            BadBase, match="expected a text-to-image model of diffusers in safetensors files, found"
        ) as caught:
            make_renderer(tmp_path / folder, tmp_path / "cache").draw(tiny.lora)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_pickles_are_never_read(tiny: Tiny, tmp_path: Path) -> None:
    for path in tiny.model.rglob("*"):
        target = tmp_path / "model" / path.relative_to(tiny.model)
        if path.is_file() and path.parent.name == "unet" and path.suffix == ".safetensors":
            target.with_suffix(".bin").write_bytes(b"a pickle")
        elif path.is_file():
            target.write_bytes(path.read_bytes())
        else:
            target.mkdir(parents=True)
    with pytest.raises(BadBase):
        make_renderer(tmp_path / "model", tmp_path / "cache").draw(tiny.lora)


def test_the_command_takes_a_base(tiny: Tiny, tmp_path: Path) -> None:
    arguments = [
        "draw",
        str(tiny.lora),
        "--base",
        f"tiny={tiny.model}",
        "--prompt",
        "a cat",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "made"),
        "--json",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert (result["family"], result["prompt"], Path(result["picture"]).parent) == ("tiny", "a cat", tmp_path / "made")


@pytest.mark.parametrize("variant", [None, "fp16"])
def test_a_base_that_was_added_draws(variant: str | None, tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    StableDiffusionPipeline.from_pretrained(tiny.model, safety_checker=None).save_pretrained(folder, variant=variant)
    arguments = ["draw", str(tiny.lora), "--prompt", "a cat", "--steps", "1", "--out", str(tmp_path / "made")]
    nothing = CliRunner().invoke(app, arguments)
    assert nothing.exit_code == 1 and "name one with `loradex base add PATH`" in nothing.stderr
    assert CliRunner().invoke(app, ["base", "add", str(folder)]).exit_code == 0
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    (result,) = json.loads(done.stdout)["results"]
    assert result["family"] == "tiny" and Path(result["picture"]).exists()
    folder.rename(tmp_path / "moved")
    moved = CliRunner().invoke(app, arguments)
    assert moved.exit_code == 1 and f"moved or deleted: {folder}; `loradex base add NEWPATH`" in moved.stderr


def test_added_bases_that_cannot_draw(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tiny.model, folder)
    bases = BaseModels.from_pairs()
    add_bases([folder])
    assert bases.get("tiny").paths == (folder,) and list(bases.by_family) == ["mini-a", "mini-b", "tiny"]
    assert BaseModels.from_pairs([f"tiny={tiny.model}"]).get("tiny").paths == (tiny.model,)
    config = folder / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(NoBase, match="has changed since it was added"):
        bases.get("tiny")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    config.write_text(json.dumps({"cross_attention_dim": 768, "block_out_channels": [320, 640, 1280, 1280]}))
    add_bases([folder])
    with pytest.raises(
        NoBase, match="expected a U-Net or a transformer as safetensors to draw with, found text_encoder"
    ):
        bases.get("sd1")
