"""Routing: by layers, by the directions of updates, and by the nearest base model."""

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileUnsupported, NoExpert, NoExpertReason
from loradex.retrieval.lora import FullModel
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression
from loradex.retrieval.router import Router
from loradex.retrieval.space.calibration import Background, Calibration
from loradex.retrieval.space.embedding_space import Space

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
LAYERS = {f"{BLOCK}.to_q": (320, 320), f"{BLOCK}.to_k": (320, 768)}
SPACE = Space("local-dir:clip", ("{}",), torch.zeros(8), torch.zeros(8))


def directions(tree: int) -> dict[str, torch.Tensor]:
    """The output directions of the updates of a model tree."""
    torch.manual_seed(tree)
    return {layer: torch.linalg.qr(torch.randn(out, 4))[0] for layer, (out, _) in LAYERS.items()}


def updates(tree: int, models: int, seed: int) -> dict[str, Factors]:
    outputs = directions(tree)
    torch.manual_seed(seed)
    return {
        layer: Factors(torch.randn(models, 2, width), outputs[layer] @ torch.randn(models, 4, 2))
        for layer, (_, width) in LAYERS.items()
    }


def expert_of(tree: int, base: str | None = None) -> Expert:
    models = updates(tree, 30, seed=100 + tree)
    targets = F.normalize(torch.randn(30, 8), dim=-1)
    model = SketchRegression.fit(models, targets, torch.arange(30), SketchConfig(tuple(LAYERS), 4, 4))
    model.alignment.update(dict.fromkeys(LAYERS, 1.0))
    calibration = Calibration(Background.fit(targets), 1.0, 0.0)
    return Expert(f"tree-{tree}", "sd1", SPACE.name, dict(LAYERS), model, calibration, Familiarity.fit(models), base)


def save_lora(path: Path, models: dict[str, Factors], layers: tuple[str, ...] = tuple(LAYERS)) -> Path:
    parts = {
        f"unet.{layer}.lora.{part}.weight": getattr(models[layer], part)[0].contiguous()
        for layer in layers
        for part in ("down", "up")
    }
    save_file(parts, path)
    return path


def test_a_lora_goes_to_the_tree_whose_directions_it_shares(tmp_path: Path) -> None:
    router = Router({f"tree-{tree}": expert_of(tree) for tree in (1, 2)}, {})
    for tree in (1, 2):
        lora = router.open(save_lora(tmp_path / "x.safetensors", updates(tree, 1, seed=7)))
        expert, layers = router.route(lora)
        assert expert.tree == f"tree-{tree}"
        assert layers.keys() == LAYERS.keys()


def test_a_lora_of_another_base_model_with_the_same_layers_is_refused(tmp_path: Path) -> None:
    router = Router({"tree-1": expert_of(1)}, {})
    lora = router.open(save_lora(tmp_path / "x.safetensors", updates(3, 1, seed=7)))
    with pytest.raises(NoExpert, match="another base model") as error:
        router.route(lora)
    assert error.value.reason is NoExpertReason.STRANGER
    copy = pickle.loads(pickle.dumps(error.value))  # noqa: S301 - our own bytes
    assert (str(copy), copy.reason) == (str(error.value), NoExpertReason.STRANGER)


def test_a_missing_expert_or_layer_is_named(tmp_path: Path) -> None:
    router = Router({"tree-1": expert_of(1)}, {})
    with pytest.raises(NoExpert, match="expected layer") as error:
        expert = expert_of(1)
        expert.model.alignment.update({f"{BLOCK}.to_q": 0.1})  # type: ignore[union-attr]
        Router({"tree-1": expert}, {}).route(
            router.open(save_lora(tmp_path / "q.safetensors", updates(1, 1, 7), (f"{BLOCK}.to_q",)))
        )
    assert error.value.reason is NoExpertReason.LAYERS
    other = {"unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k": (1280, 2048)}
    parts = {
        f"{name}.lora.{part}.weight": torch.randn((2, b) if part == "down" else (a, 2))
        for name, (a, b) in other.items()
        for part in ("down", "up")
    }
    save_file(parts, tmp_path / "xl.safetensors")
    with pytest.raises(NoExpert, match="found family sdxl") as error:
        router.route(router.open(tmp_path / "xl.safetensors"))
    assert error.value.reason is NoExpertReason.FAMILY
    assert "`loradex expert add PLACE`" in str(error.value)
    assert "`loradex grow sdxl`" in str(error.value)


def write_full_model(
    path: Path, seed: int, base: dict[str, torch.Tensor] | None = None, step: float = 0.1
) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    tensors = {
        f"{layer}.weight": (base[f"{layer}.weight"] if base else 0) + (step if base else 1) * torch.randn(shape)
        for layer, shape in LAYERS.items()
    }
    save_file(tensors, path)
    return tensors


def test_a_full_model_goes_to_the_nearest_base(tmp_path: Path) -> None:
    (tmp_path / "experts").mkdir()
    SPACE.save(tmp_path / "space.safetensors")
    bases = {}
    for tree in (1, 2):
        bases[tree] = write_full_model(tmp_path / f"base-{tree}.safetensors", seed=tree)
        expert_of(tree, f"base-{tree}.safetensors").save(tmp_path / "experts" / f"tree-{tree}.safetensors")
    encoder = Encoder.load(tmp_path)
    for tree in (1, 2):
        write_full_model(tmp_path / "tuned.safetensors", seed=9, base=bases[tree])
        model = encoder.router.open(tmp_path / "tuned.safetensors")
        assert isinstance(model, FullModel)
        expert, _ = encoder.router.route(model)
        assert expert.tree == f"tree-{tree}"
        assert float(encoder.encode_file(model).norm()) == pytest.approx(1, abs=1e-5)
    write_full_model(tmp_path / "stranger.safetensors", seed=11)
    with pytest.raises(NoExpert, match="another base model") as error:
        encoder.router.route(encoder.router.open(tmp_path / "stranger.safetensors"))
    assert error.value.reason is NoExpertReason.STRANGER


def test_a_full_model_without_a_base_is_refused(tmp_path: Path) -> None:
    write_full_model(tmp_path / "tuned.safetensors", seed=9)
    with pytest.raises(FileUnsupported, match="expected LoRA factors"):
        Router({"tree-1": expert_of(1)}, {}).open(tmp_path / "tuned.safetensors")
