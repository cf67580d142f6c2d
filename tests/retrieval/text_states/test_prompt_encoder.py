"""States against diffusers' own pipelines and, for the miniature, against what its base models were trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from loradex.app.bases.shipped import shipped_base
from loradex.app.miniature.pipeline import embed_prompts
from loradex.app.paths import CLIP
from loradex.retrieval.errors import CheckpointError, FileCorrupt
from loradex.retrieval.text_states import PromptEncoder
from tests.retrieval.text_states.conftest import Saved
from tests.retrieval.text_states.pipelines import (
    FIRST_WIDTH,
    SECOND_WIDTH,
    encode,
    pipeline,
    save_checkpoint,
    save_folder,
)

PROMPTS = [
    "",
    "a photo of a kozu dog",
    "wow! a cat!!",
    "Caf\u00e9 cafe\u0301, \u65e5\u672c\u8a9e \U0001f389  it\u2019s <3 &amp;",
    "a castle on a hill, oil on canvas, " * 20,
]
WIDTHS = {"sd1": FIRST_WIDTH, "sd2": SECOND_WIDTH, "sdxl": FIRST_WIDTH + SECOND_WIDTH}


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_states_are_those_of_the_pipeline(saved: Callable[[str], Saved], family: str, kind: str) -> None:
    model = saved(family)
    encoder = PromptEncoder.load(getattr(model, kind))
    states = encoder.states(encoder.tokenize(PROMPTS))
    expected = encode(model.pipe, PROMPTS)
    assert states.shape == (len(PROMPTS), 77, WIDTHS[family]) == (len(PROMPTS), encoder.length, encoder.width)
    assert expected.std() > 0.1
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_a_shared_beginning_and_a_cut_change_nothing(saved: Callable[[str], Saved], family: str) -> None:
    model = saved(family)
    prompts = [f"a photo of a {word}, in a garden" for word in ["kozu", "kozu dog", "cat"] * 25]
    encoder = PromptEncoder.load(model.folder)
    tokens = encoder.tokenize(prompts)
    expected = encode(model.pipe, prompts)
    torch.testing.assert_close(encoder.states(tokens, 12), expected[:, :12], atol=1e-5, rtol=0)
    cut = [some[:, :9] for some in tokens]
    torch.testing.assert_close(encoder.states(cut), expected[:, :9], atol=1e-5, rtol=0)
    same = encoder.states([some[:1].expand(300, -1)[:, :9] for some in tokens])
    torch.testing.assert_close(same, expected[:1, :9].expand(300, -1, -1), atol=1e-5, rtol=0)


def test_the_refiner_reads_the_second_encoder_alone(saved: Callable[[str], Saved]) -> None:
    model = saved("sdxl")
    encoder = PromptEncoder.load(replace(model.file, family="sdxl-refiner"))
    states = encoder.states(encoder.tokenize(PROMPTS))
    torch.testing.assert_close(states, encode(model.pipe, PROMPTS)[..., FIRST_WIDTH:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["mini-a", "mini-b"])
def test_the_miniature_gets_what_its_base_models_were_trained_on(family: str) -> None:
    encoder = PromptEncoder.load(shipped_base(family))
    clip = open_clip.create_model(f"local-dir:{CLIP}").eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{CLIP}")
    prompts = ["", "an icon of a cat", "wow! a cat!!", "a castle on a hill, " * 9]
    expected = embed_prompts(clip.text, tokenizer(prompts))
    states = encoder.states(encoder.tokenize(prompts))
    assert (encoder.length, encoder.width) == (16, 128)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    pipe = pipeline("sd2")
    base = save_checkpoint(pipe, "sd2", tmp_path / "model.safetensors", dtype)
    pipe.text_encoder.to(dtype).to(torch.float32)
    encoder = PromptEncoder.load(base)
    states = encoder.states(encoder.tokenize(PROMPTS))
    torch.testing.assert_close(states, encode(pipe, PROMPTS), atol=1e-5, rtol=0)


def test_linear_maps_in_bfloat16_are_near(saved: Callable[[str], Saved]) -> None:
    model = saved("sdxl")
    encoder = PromptEncoder.load(model.file, dtype=torch.bfloat16)
    states, expected = encoder.states(encoder.tokenize(PROMPTS)), encode(model.pipe, PROMPTS)
    assert states.dtype == torch.float32
    assert 0 < (states - expected).norm() / expected.norm() < 0.02


def test_sharded_folders_and_longer_prefixes_are_read(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    model = saved("sd1")
    base = save_folder(model.pipe, "sd1", tmp_path, max_shard_size="1MB")
    assert len(base.parts["text_encoder"].files) > 1
    encoder = PromptEncoder.load(base)
    torch.testing.assert_close(
        encoder.states(encoder.tokenize(PROMPTS)), encode(model.pipe, PROMPTS), atol=1e-5, rtol=0
    )
    part = replace(model.file.parts["text_encoder"], prefix="cond_stage_model.transformer.text_model.")
    other = PromptEncoder.load(replace(model.file, parts={"text_encoder": part}))
    assert torch.equal(other.states(other.tokenize(PROMPTS)), encoder.states(encoder.tokenize(PROMPTS)))


def test_the_fingerprint_is_that_of_the_states(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    model = saved("sd1")
    fingerprint = PromptEncoder.load(model.folder).fingerprint
    assert fingerprint == PromptEncoder.load(model.file).fingerprint == PromptEncoder.load(model.file).fingerprint
    assert fingerprint != PromptEncoder.load(model.file, dtype=torch.bfloat16).fingerprint
    pipe = pipeline("sd1")
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight[7, 7] += 1
    assert fingerprint != PromptEncoder.load(save_checkpoint(pipe, "sd1", tmp_path / "b.safetensors")).fingerprint


def test_other_families_and_missing_encoders_say_what_is_not_read(saved: Callable[[str], Saved]) -> None:
    base = saved("sd1").file
    with pytest.raises(CheckpointError, match=r"found wan, which attends to UMT5's states: not read"):
        PromptEncoder.load(replace(base, family="wan"))
    with pytest.raises(CheckpointError, match=r"found unknown, which attends to states that are not known"):
        PromptEncoder.load(replace(base, family="unknown"))
    with pytest.raises(CheckpointError, match=r"expected a text_encoder_2 in it, found none"):
        PromptEncoder.load(replace(base, family="sdxl"))


def test_weights_that_overflow_are_named(tmp_path: Path) -> None:
    pipe = pipeline("sd1")
    with torch.no_grad():
        for name, parameter in pipe.text_encoder.named_parameters():
            if "fc" in name:
                parameter.fill_(1e12)
    encoder = PromptEncoder.load(save_checkpoint(pipe, "sd1", tmp_path / "model.safetensors"))
    with pytest.raises(FileCorrupt, match="text encoder: expected finite states, found NaN or infinity"):
        encoder.states(encoder.tokenize(["a cat"]))
