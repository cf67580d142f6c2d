"""An expert takes the means and deviations of LoRAs of another making over, without their labels."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.probex.batched_factors import stack_layers
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression
from loradex.retrieval.space.calibration import Background, Calibration
from loradex.retrieval.training.packing import pack_files
from loradex.retrieval.training.take_over import take_over

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v"
OUT, IN = 320, 768
CONFIG = SketchConfig((LAYER,), 16, 8, rank=6)
DIRECTIONS = torch.linalg.qr(torch.randn(OUT, 8, generator=torch.Generator().manual_seed(5)))[0].mT
INPUT = F.normalize(torch.randn(1, IN, generator=torch.Generator().manual_seed(6)), dim=1)


def save(folder: Path, number: int, targets: torch.Tensor, shift: torch.Tensor) -> Path:
    """A LoRA that moves along ``DIRECTIONS`` by its targets and by what all LoRAs of its making share."""
    up = ((targets + shift) @ DIRECTIONS)[:, None] + torch.randn(OUT, 1) / 50
    path = folder / f"{number}.safetensors"
    save_file({f"unet.{LAYER}.lora.down.weight": INPUT.clone(), f"unet.{LAYER}.lora.up.weight": up}, path)
    return path


def fleet(folder: Path, count: int, shift: torch.Tensor, seed: int) -> tuple[list[Path], torch.Tensor]:
    torch.manual_seed(seed)
    folder.mkdir()
    targets = F.normalize(torch.randn(count, 8), dim=-1)
    return [save(folder, row, targets[row], shift) for row in range(count)], targets


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Expert, list[Path], torch.Tensor]:
    """An expert of one fleet, and another fleet, which is off by a constant."""
    folder = tmp_path_factory.mktemp("fleets")
    own, targets = fleet(folder / "own", 60, torch.zeros(8), 1)
    models = pack_files(own)
    model = SketchRegression.fit(models, targets, torch.arange(60), CONFIG)
    calibration = Calibration(Background.fit(model.encode(models)), 1.0, 0.0)
    family = LoraFile.open(own[0]).family
    expert = Expert("tree", family, "space", {LAYER: (OUT, IN)}, model, calibration, Familiarity.fit(models))
    others, their_targets = fleet(folder / "others", 40, torch.tensor([1.5, *[0.0] * 7]), 2)
    return expert, others, their_targets


def nearest(expert: Expert, paths: list[Path], targets: torch.Tensor) -> float:
    """The share of files whose own target scores best."""
    scores = expert.calibration.scores(expert.encode_factors(pack_files(paths)), targets)
    return float((scores.argmax(1) == torch.arange(len(paths))).float().mean())


@pytest.mark.parametrize("second_moments", [False, True])
def test_other_loras_are_read_after_their_means_were_taken_over(
    made: tuple[Expert, list[Path], torch.Tensor], tmp_path: Path, second_moments: bool
) -> None:
    expert, paths, targets = made
    progress: list[tuple[int, int]] = []
    taken = take_over(expert, map(LoraFile.open, paths), second_moments, lambda *done: progress.append(done))
    assert nearest(taken, paths, targets) > nearest(expert, paths, targets) + 0.15
    assert progress[-1] == (80, 80)
    factors = stack_layers([LoraFile.open(path).updates([LAYER]) for path in paths], [LAYER])[LAYER]
    features = expert.model.features(LAYER, factors)  # type: ignore[union-attr]
    mixed = (40 * features.mean(0) + 50 * expert.model.mean[LAYER]) / 90  # type: ignore[union-attr]
    torch.testing.assert_close(taken.model.mean[LAYER], mixed, atol=1e-5, rtol=1e-3)  # type: ignore[union-attr]
    assert float(taken.familiarity.scores(pack_files(paths)).mean()) == pytest.approx(1, abs=0.1)
    if second_moments:
        ratio = expert.model.deviation[LAYER] / features.std(0)  # type: ignore[union-attr]
        expected = expert.model.weight[LAYER] * ratio.clamp(1 / 4, 4)[:, None]  # type: ignore[union-attr]
        torch.testing.assert_close(taken.model.weight[LAYER], expected, atol=1e-3, rtol=1e-2)  # type: ignore[union-attr]
    taken.save(tmp_path / "expert.safetensors")
    loaded = Expert.load(tmp_path / "expert.safetensors")
    assert loaded.model.deviation.keys() == {LAYER}  # type: ignore[union-attr]
    assert (
        float((loaded.encode_factors(pack_files(paths)) * taken.encode_factors(pack_files(paths))).sum(1).min()) > 0.999
    )


def test_too_few_or_others_are_refused(made: tuple[Expert, list[Path], torch.Tensor]) -> None:
    expert, paths, _ = made
    with pytest.raises(FileUnsupported, match="at least 8 LoRAs .* found 7"):
        take_over(expert, map(LoraFile.open, paths[:7]))
