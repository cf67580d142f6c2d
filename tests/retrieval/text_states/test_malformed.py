"""Text encoders that are damaged, hostile or of another kind; and that no other byte of a checkpoint is read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import CheckpointError, FileCorrupt, FileMissing, LoradexError
from loradex.retrieval.text_states import PromptEncoder
from tests.retrieval.text_states.conftest import Saved

BIAS = "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_bias"
FILES = {"sd1": "cond_stage_model.transformer.text_model.", "sd2": "cond_stage_model.model."}

Change = Callable[[dict[str, Tensor]], Any]


def changed(base: BaseModel, change: Change, path: Path) -> BaseModel:
    """A copy of a checkpoint in one file, with a change of its tensors."""
    tensors = load_file(base.path)
    change(tensors)
    save_file(tensors, path)
    parts = {name: replace(part, files=(path,)) for name, part in base.parts.items()}
    return replace(base, path=path, parts=parts)


CHANGES: dict[str, tuple[str, Change, type[LoradexError], str]] = {
    "missing": ("sd2", lambda t: t.pop(BIAS), CheckpointError, r"in_proj_bias of shape \(576,\), found none of that"),
    "shape": ("sd2", lambda t: t.update({BIAS: torch.zeros(575)}), CheckpointError, r"\(576,\), found shape \(575,\)"),
    "dtype": ("sd2", lambda t: t.update({BIAS: t[BIAS].int()}), CheckpointError, r"expected F64, .* found I32"),
    "NaN": ("sd2", lambda t: t[BIAS].fill_(torch.nan), FileCorrupt, r"in_proj_bias: expected finite weights"),
    "infinity": ("sd2", lambda t: t[BIAS][3:4].fill_(-torch.inf), FileCorrupt, r"expected finite weights up to 1e\+12"),
    "huge": ("sd2", lambda t: t[BIAS][3:4].fill_(1e13), FileCorrupt, r"found NaN, infinity or larger ones"),
    "no embeddings": (
        "sd1",
        lambda t: t.pop(f"{FILES['sd1']}embeddings.token_embedding.weight"),
        CheckpointError,
        "expected the text_encoder of a CLIP, found tensors of its embeddings or layers missing",
    ),
    "no layers": (
        "sd1",
        lambda t: [t.pop(name) for name in list(t) if ".layers." in name],
        CheckpointError,
        "found tensors of its embeddings or layers missing",
    ),
    "a hole": (
        "sd1",
        lambda t: [t.pop(name) for name in list(t) if ".layers.1." in name],
        CheckpointError,
        r"layers\.1\..* found none of that name",
    ),
    "one layer": (
        "sd2",
        lambda t: [t.pop(name) for name in list(t) if ".resblocks." in name and ".resblocks.0." not in name],
        CheckpointError,
        "expected more than 1 layers in text_encoder, found 1",
    ),
    "vocabulary": (
        "sd1",
        lambda t: t.update({f"{FILES['sd1']}embeddings.token_embedding.weight": torch.zeros(1000, 128)}),
        CheckpointError,
        "expected vocab_size from 49408 to 1048576, found 1000",
    ),
    "positions": (
        "sd1",
        lambda t: t.update({f"{FILES['sd1']}embeddings.position_embedding.weight": torch.zeros(64, 128)}),
        CheckpointError,
        "expected a text_encoder of 77 positions, found 64",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_malformed_checkpoints_are_refused(saved: Callable[[str], Saved], name: str, tmp_path: Path) -> None:
    family, change, kind, message = CHANGES[name]
    base = changed(saved(family).file, change, tmp_path / "model.safetensors")
    with pytest.raises(kind, match=message) as caught:
        PromptEncoder.load(base)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    assert str(base.path) in str(caught.value)


CONFIGS: dict[str, tuple[object, str]] = {
    "no JSON": ("{", "expected JSON, found"),
    "deep": ("[" * 100_000, "expected JSON, found"),
    "long": ('{"a": "' + "a" * 2**20 + '"}', "expected JSON of up to 1 MiB, found more"),
    "list": ([], "expected a JSON object"),
    "other model": ({"model_type": "t5"}, "expected model_type clip_text_model, found 't5'"),
    "mask": ({"use_attention_mask": True}, "found use_attention_mask"),
    "activation": ({"hidden_act": "__import__('os')"}, "expected hidden_act quick_gelu or gelu"),
    "unhashable": ({"hidden_act": ["gelu"]}, "expected hidden_act quick_gelu or gelu"),
    "epsilon": ({"layer_norm_eps": -1.0}, "expected layer_norm_eps between 0 and 1"),
    "layers": ({"num_hidden_layers": 10**9}, "expected num_hidden_layers from 1 to 100, found 1000000000"),
    "float": ({"hidden_size": 128.0}, r"expected hidden_size from 1 to 8192, found 128\.0"),
    "bool": ({"num_attention_heads": True}, "expected num_attention_heads from 1 to 256, found True"),
    "heads": ({"num_attention_heads": 3}, "expected a width that is a multiple of 3 heads, found 128"),
    "width": ({"hidden_size": 256}, r"of shape \(49408, 256\), found shape \(49408, 128\)"),
    "more layers": ({"num_hidden_layers": 4}, r"layers\.3\..*found none of that name"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configs_are_refused(saved: Callable[[str], Saved], name: str, tmp_path: Path) -> None:
    base, (change, message) = saved("sd1").folder, CONFIGS[name]
    part = base.parts["text_encoder"]
    assert part.config is not None
    config = json.loads(part.config.read_text()) | change if isinstance(change, dict) else change
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    kind = CheckpointError if isinstance(change, dict) else FileCorrupt
    with pytest.raises(kind, match=message) as caught:
        PromptEncoder.load(replace(base, parts={"text_encoder": replace(part, config=path)}))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_configs_are_honoured_where_shapes_say_nothing(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    base = saved("sd1").folder
    part = base.parts["text_encoder"]
    assert part.config is not None
    path, states = tmp_path / "config.json", []
    for change in ({}, {"num_attention_heads": 4}, {"hidden_act": "gelu"}, {"layer_norm_eps": 0.5}):
        path.write_text(json.dumps(json.loads(part.config.read_text()) | change))
        encoder = PromptEncoder.load(replace(base, parts={"text_encoder": replace(part, config=path)}))
        states.append(encoder.states(encoder.tokenize(["a cat"])))
    assert all((other - states[0]).abs().max() > 1e-3 for other in states[1:])


def test_missing_files_are_named(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    base = saved("sd1").folder
    part = base.parts["text_encoder"]
    for gone in ({"files": (tmp_path / "gone.safetensors",)}, {"config": tmp_path / "gone.json"}):
        with pytest.raises(FileMissing, match=r"gone\.(safetensors|json): cannot be read"):
            PromptEncoder.load(replace(base, parts={"text_encoder": replace(part, **gone)}))


def test_no_other_byte_of_a_checkpoint_is_read(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("only Linux counts the bytes that a process reads")
    path, unet = tmp_path / "model.safetensors", 2**28
    base = changed(saved("sd1").file, lambda t: t.update(unet=torch.zeros(unet // 4)), path)
    PromptEncoder.load(base)  # imports what it needs
    before = int(counters.read_text().split()[1])
    PromptEncoder.load(base)
    read = int(counters.read_text().split()[1]) - before
    encoder = path.stat().st_size - unet
    assert 0.9 * encoder < read < 1.1 * encoder
