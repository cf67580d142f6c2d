"""LoRA files in several serialisations give the same updates; broken ones end in a typed error."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from retrieval.errors import FileCorrupt, FileUnsupported
from retrieval.lora import Format, LoraFile

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LAYERS = {f"{BLOCK}.attn1.to_q": (96, 96), f"{BLOCK}.attn2.to_k": (96, 128), f"{BLOCK}.attn1.to_out.0": (96, 96)}


def factors(rank: int = 4, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    return {layer: (torch.randn(rank, width), torch.randn(out, rank)) for layer, (out, width) in LAYERS.items()}


def diffusers(made: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {f"unet.{layer}.lora.{part}.weight": t for layer, pair in made.items() for part, t in zip(("down", "up"), pair, strict=True)}


def peft(made: dict[str, tuple[Tensor, Tensor]], prefix: str = "base_model.model.", adapter: str = "") -> dict[str, Tensor]:
    return {f"{prefix}{layer}.lora_{part}{adapter}.weight": t for layer, pair in made.items() for part, t in zip("AB", pair, strict=True)}


def attn_processor(made: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    tensors = {}
    for layer, pair in made.items():
        block, _, to = layer.removesuffix(".0").rpartition(".")
        tensors |= {f"{block}.processor.{to}_lora.{part}.weight": t for part, t in zip(("down", "up"), pair, strict=True)}
    return tensors


@pytest.mark.parametrize(
    ("write", "form"),
    [(diffusers, Format.DIFFUSERS), (peft, Format.PEFT), (attn_processor, Format.ATTN_PROCESSOR), (lambda made: peft(made, "unet.", ".default"), Format.PEFT)],
)
def test_every_serialisation_gives_the_same_updates_and_id(tmp_path: Path, write: object, form: Format) -> None:
    made = factors()
    save_file(write(made), tmp_path / "x.safetensors")  # type: ignore[operator]
    lora = LoraFile.open(tmp_path / "x.safetensors")
    assert lora.format is form
    assert (lora.family, lora.ranks, lora.shapes) == ("mini-a", [4], dict(sorted(LAYERS.items())))
    for layer, update in lora.updates().items():
        torch.testing.assert_close(update.up @ update.down, made[layer][1] @ made[layer][0])
    save_file(diffusers(made), tmp_path / "y.safetensors", metadata={"class_name": "dog"})
    assert lora.id == LoraFile.open(tmp_path / "y.safetensors").id


def test_peft_settings_scale_the_update(tmp_path: Path) -> None:
    made = factors()
    save_file(peft(made), tmp_path / "adapter_model.safetensors")
    for settings, scale in ({"lora_alpha": 16}, 4.0), ({"lora_alpha": 16, "use_rslora": True}, 8.0), ({}, 1.0):
        (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
        update = LoraFile.open(tmp_path / "adapter_model.safetensors").updates()[f"{BLOCK}.attn1.to_q"]
        down, up = made[f"{BLOCK}.attn1.to_q"]
        torch.testing.assert_close(update.up @ update.down, scale * up @ down)


def test_another_weight_gives_another_id(tmp_path: Path) -> None:
    for name, seed in ("a", 0), ("b", 1):
        save_file(diffusers(factors(seed=seed)), tmp_path / name)
    assert LoraFile.open(tmp_path / "a").id != LoraFile.open(tmp_path / "b").id


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: {"something.weight": torch.ones(2)}, FileUnsupported),
        (lambda t: {name: x for name, x in t.items() if ".down." in name}, FileCorrupt),
        (lambda t: {name: torch.ones(5, 96) if ".down." in name else x for name, x in t.items()}, FileCorrupt),
        (lambda t: {name: torch.empty(0, 96) if ".down." in name else torch.empty(96, 0) for name, x in t.items()}, FileCorrupt),
        (lambda t: {name: torch.ones(4, 96, 3, 3) if ".down." in name else x for name, x in t.items()}, FileUnsupported),
    ],
)
def test_files_that_are_no_sound_lora_are_refused(tmp_path: Path, change: object, error: type[Exception]) -> None:
    save_file(change(diffusers(factors())), tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(error):
        LoraFile.open(tmp_path / "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    tensors = diffusers(factors())
    tensors[f"unet.{BLOCK}.attn1.to_q.lora.up.weight"][3, 1] = value
    save_file(tensors, tmp_path / "x")
    with pytest.raises(FileCorrupt, match="finite"):
        LoraFile.open(tmp_path / "x").updates()


def test_real_files_are_read(shared_loras: Path) -> None:
    facts = {}
    for path in sorted(shared_loras.glob("**/*.safetensors")):
        if "cloneofsimo" not in path.name:
            lora = LoraFile.open(path)
            facts[path.name] = (lora.format, lora.family, lora.ranks, len(lora.layers))
    assert facts == {
        "sd15-attnprocs-pokemon.safetensors": (Format.ATTN_PROCESSOR, "sd1", [4], 128),
        "sd15-diffusers-bf16.safetensors": (Format.DIFFUSERS, "sd2", [4], 128),  # its keys and values read 1024 wide states
        "sd15-diffusers-brain-mri.safetensors": (Format.DIFFUSERS, "sd1", [4], 128),
        "sd15-diffusers-peft-anime.safetensors": (Format.PEFT, "sd1", [4], 96),
        "adapter_model.safetensors": (Format.PEFT, "sd1", [4], 96),
    }


def test_one_real_lora_saved_twice_is_one(shared_loras: Path) -> None:
    twins = [
        LoraFile.open(shared_loras / "sd15-diffusers-peft-anime.safetensors"),
        LoraFile.open(shared_loras / "sd15-peft-anime" / "adapter_model.safetensors"),
    ]
    assert twins[0].id == twins[1].id
    for (layer, first), (other, second) in zip(twins[0].updates().items(), twins[1].updates().items(), strict=True):
        assert layer == other
        torch.testing.assert_close(first.up @ first.down, second.up @ second.down)
