"""Layers that files share, and their ranking."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.training.layer_selection import rank_layers, shared_layers

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
SIGNAL, NOISE, RARE = f"{BLOCK}.to_v", f"{BLOCK}.to_q", f"{BLOCK}.to_out.0"
SHAPES = {SIGNAL: (320, 768), NOISE: (320, 320), RARE: (320, 320)}


def save(path: Path, layers: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Path:
    parts = {
        f"unet.{layer}.lora.{part}.weight": factor.clone()
        for layer, pair in layers.items()
        for part, factor in zip(("down", "up"), pair, strict=True)
    }
    save_file(parts, path)
    return path


def some_files(folder: Path, models: int = 60) -> tuple[list[Path], torch.Tensor, torch.Tensor]:
    """Files of 30 concepts; one layer depends on the concept, another is noise, a third is in half of the files."""
    torch.manual_seed(0)
    targets, concepts, directions = (
        F.normalize(torch.randn(30, 6), dim=-1),
        torch.arange(models) % 30,
        torch.randn(6, 320),
    )
    paths = []
    for row, concept in enumerate(concepts.tolist()):
        signal = (torch.ones(1, 768), (targets[concept] @ directions)[:, None] + torch.randn(320, 1) / 9)
        layers = {SIGNAL: signal, NOISE: (torch.randn(2, 320), torch.randn(320, 2))} | (
            {RARE: signal} if row < models // 2 else {}
        )
        paths.append(
            save(
                folder / f"{row}.safetensors",
                {layer: (down[:, : SHAPES[layer][1]].contiguous(), up) for layer, (down, up) in layers.items()},
            )
        )
    return paths, targets[concepts], concepts


def test_shared_layers_are_those_of_nearly_all_files(tmp_path: Path) -> None:
    paths, _, _ = some_files(tmp_path, 20)
    assert shared_layers([LoraFile.open(path).shapes for path in paths]) == {
        NOISE: SHAPES[NOISE],
        SIGNAL: SHAPES[SIGNAL],
    }


def test_the_layer_that_depends_on_the_concept_is_first(tmp_path: Path) -> None:
    paths, targets, concepts = some_files(tmp_path)
    progress: list[int] = []
    alignments = rank_layers(paths, [NOISE, SIGNAL], targets, concepts, LoraFile.open, progress.append)
    assert list(alignments) == [SIGNAL, NOISE]
    assert alignments[SIGNAL] > 0.6 > 0.3 > alignments[NOISE]
    assert progress == [1, 2]
