"""Full models against their dense difference to the base model."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora import FullModel
from loradex.retrieval.lora.full_model import KEPT_RANK, leading_directions

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
QUERY, KEY = f"{BLOCK}.attn2.to_q", f"{BLOCK}.attn2.to_k"
SGM = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2"


def some_weights(seed: int, base: dict[str, Tensor] | None = None, step: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    shapes = {
        f"{QUERY}.weight": (320, 320),
        f"{KEY}.weight": (320, 768),
        "conv_in.weight": (320, 4, 3, 3),
        "conv_in.bias": (320,),
    }
    return {name: (base[name] if base else 0) + step * torch.randn(shape) for name, shape in shapes.items()}


def save(folder: Path, name: str, tensors: dict[str, Tensor]) -> Path:
    path = folder / f"{name}.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def test_updates_are_the_leading_directions_of_the_difference(tmp_path: Path) -> None:
    base = some_weights(0)
    torch.manual_seed(1)
    change = (torch.randn(320, 3) @ torch.randn(3, 768)) / 10
    tuned = base | {f"{KEY}.weight": base[f"{KEY}.weight"] + change}
    model = FullModel.open(save(tmp_path, "tuned", tuned), save(tmp_path, "base", base), "sd1")
    assert (model.family, model.shapes[KEY], model.shapes["conv_in"]) == ("sd1", (320, 768), (320, 36))
    update = model.updates([KEY])[KEY]
    assert update.rank == KEPT_RANK
    torch.testing.assert_close(update.up @ update.down, change, atol=1e-4, rtol=1e-3)
    unchanged = model.updates([QUERY])[QUERY]
    assert not unchanged.up.any()
    small = model.updates(["conv_in"])["conv_in"]
    assert small.rank == 36


def test_a_difference_of_full_rank_keeps_nearly_as_much_as_its_svd(tmp_path: Path) -> None:
    torch.manual_seed(2)
    spectrum = 0.97 ** torch.arange(300)
    difference = torch.linalg.qr(torch.randn(400, 300))[0] * spectrum @ torch.linalg.qr(torch.randn(500, 300))[0].T
    update = leading_directions(lambda: iter(difference.split(90)), (400, 500), 64)
    kept, best = (update.up @ update.down).norm(), spectrum[:64].norm()
    assert 0.99 * best <= kept <= best
    full = leading_directions(lambda: iter(difference[:50].split(20)), (50, 500), 64)
    torch.testing.assert_close(full.up @ full.down, difference[:50], atol=1e-5, rtol=1e-4)


def test_other_layer_names_give_the_same_layers(tmp_path: Path) -> None:
    base, tuned = some_weights(0), some_weights(1)
    names = {QUERY: f"{SGM}.to_q", KEY: f"{SGM}.to_k"}
    sgm = {f"{other}.weight": tuned[f"{layer}.weight"] for layer, other in names.items()}
    root = save(tmp_path, "base", base)
    models = [
        FullModel.open(save(tmp_path, name, tensors), root, "sd1")
        for name, tensors in (("diffusers", tuned), ("sgm", sgm))
    ]
    first, second = (model.updates([KEY])[KEY] for model in models)
    torch.testing.assert_close(first.up @ first.down, second.up @ second.down)


def test_the_distance_to_the_base_is_relative_to_it(tmp_path: Path) -> None:
    base = some_weights(0)
    root = save(tmp_path, "base", base)
    near = FullModel.open(save(tmp_path, "near", some_weights(1, base, 0.1)), root, "sd1")
    far = FullModel.open(save(tmp_path, "far", some_weights(2)), root, "sd1")
    assert near.distance([KEY]) == pytest.approx(0.1, rel=0.02)
    assert far.distance([KEY, QUERY]) == pytest.approx(2**0.5, rel=0.02)
    assert near.id != far.id
    assert near.id == FullModel.open(save(tmp_path, "moved", some_weights(1, base, 0.1)), root, "sd1").id


def test_files_that_are_no_model_of_the_base_are_refused(tmp_path: Path) -> None:
    root = save(tmp_path, "base", some_weights(0))
    with pytest.raises(FileUnsupported, match="found 0 of them"):
        FullModel.open(save(tmp_path, "other", {"x.weight": torch.ones(3, 3)}), root, "sd1")
    broken = some_weights(1)
    broken[f"{KEY}.weight"][3, 4] = torch.nan
    model = FullModel.open(save(tmp_path, "broken", broken), root, "sd1")
    with pytest.raises(FileCorrupt, match="NaN"):
        model.updates([KEY])
    with pytest.raises(FileCorrupt, match="expected layer absent"):
        model.updates(["absent"])
