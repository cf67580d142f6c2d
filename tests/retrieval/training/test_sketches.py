"""Sketches of files that are gone over twice, against the fit in memory; runs that are stopped; weights and kinds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from loradex.retrieval.errors import CheckpointError, FileCorrupt
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression
from loradex.retrieval.training import feature_file, sketches, updates
from loradex.retrieval.training.packing import pack_files
from loradex.retrieval.training.sketches import Sketches, sketch_updates
from loradex.retrieval.training.updates import FileUpdates, PackedUpdates

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
SHAPES = {f"{BLOCK}.to_q": (320, 320), f"{BLOCK}.to_v": (320, 768)}
CONFIG = SketchConfig(tuple(SHAPES), 12, 10, rank=6)
COUNT, HALF = 30, 20


def save(path: Path, targets: torch.Tensor, rank: int, scale: float = 0.1) -> Path:
    """A LoRA whose outputs depend on its targets."""
    tensors = {}
    for layer, (out, width) in SHAPES.items():
        directions = torch.randn(len(targets), out, generator=torch.Generator().manual_seed(len(layer)))
        tensors[f"unet.{layer}.lora.down.weight"] = torch.randn(rank, width)
        tensors[f"unet.{layer}.lora.up.weight"] = scale * (torch.randn(out, rank) + (targets @ directions)[:, None])
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], torch.Tensor, torch.Tensor]:
    """Files of different ranks, their targets and concepts."""
    torch.manual_seed(0)
    folder, concepts = tmp_path_factory.mktemp("loras"), torch.arange(COUNT) // 2
    targets = F.normalize(torch.randn(COUNT // 2, 8), dim=-1)[concepts]
    paths = [save(folder / f"{row}.safetensors", targets[row], 1 + row % 3) for row in range(COUNT)]
    return paths, targets, concepts


Data = tuple[list[Path], torch.Tensor, torch.Tensor]


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(1).min())


def halves() -> list[torch.Tensor]:
    return [torch.arange(COUNT) < HALF, torch.ones(COUNT)]


@pytest.mark.parametrize("sums_bytes", [2**40, 1])
def test_files_read_twice_give_what_models_in_memory_give(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sums_bytes: int
) -> None:
    """All layers at once or each alone, a few files a batch, and both sets of directions in the same passes."""
    paths, targets, concepts = data
    monkeypatch.setattr(sketches, "SUMS_BYTES", sums_bytes)
    monkeypatch.setattr(updates, "BATCH_BYTES", 40_000)
    progress: list[tuple[int, int]] = []
    both = sketch_updates(FileUpdates(paths), CONFIG, halves(), tmp_path / "x", lambda *done: progress.append(done))
    assert progress == sorted(progress) and progress[-1][0] == progress[-1][1]
    packed = pack_files(paths)
    for sketched, count in zip(both, (HALF, COUNT), strict=True):
        rows, models = torch.arange(count), {layer: factors[:count] for layer, factors in packed.items()}
        fit = sketched.fit(rows, targets[:count], concepts[:count], CONFIG)
        expected = SketchRegression.fit(models, targets[:count], concepts[:count], CONFIG)
        assert cosine(fit.model.encode(packed), expected.encode(packed)) > 0.9999
        assert cosine(sketched.encode(torch.arange(COUNT), fit.model), expected.encode(packed)) > 0.9999
        assert cosine(fit.vectors, expected.encode(models)) > 0.9999
        assert fit.model.alignment == pytest.approx(expected.alignment, abs=1e-3)
        own, of_memory = sketched.familiarity(rows, CONFIG.layers), Familiarity.fit(models)
        assert own.share == pytest.approx(of_memory.share, abs=1e-3)
        torch.testing.assert_close(own.scores(packed), of_memory.scores(packed), atol=2e-3, rtol=0)


def test_one_reading_serves_other_settings(data: Data, tmp_path: Path) -> None:
    paths, targets, concepts = data
    packed, rows = pack_files(paths), torch.arange(COUNT)
    (sketched,) = sketch_updates(PackedUpdates(packed), CONFIG, [torch.ones(COUNT)], tmp_path / "x")
    for settings in ({"ridge": 2.0, "most_layers": 1}, {"quadratic": 0.0, "weighted": False}):
        config = replace(CONFIG, **settings)  # type: ignore[arg-type]
        expected = SketchRegression.fit(packed, targets, concepts, config)
        assert (
            cosine(sketched.fit(rows, targets, concepts, config).model.encode(packed), expected.encode(packed)) > 0.9999
        )


def test_a_sample_stands_for_many_models(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, targets, concepts = data
    monkeypatch.setattr(sketches, "MAX_MODELS", 8)
    first, second = sketch_updates(FileUpdates(paths), CONFIG, halves(), tmp_path / "x")
    assert first.features(CONFIG.layers[0], torch.arange(COUNT)).shape == (COUNT, 12 * 10 + 78)
    fit = second.fit(torch.arange(COUNT), targets, concepts, CONFIG)
    assert float((fit.vectors * targets).sum(1).mean()) > 0.7


class Interrupt(Exception):
    """The run was stopped."""


def stopping_after(count: int, opened: list[Path]) -> Callable[[Path], LoraFile]:
    """Open files; the next one after so many stops the run."""

    def open_file(path: Path) -> LoraFile:
        if len(opened) == count:
            raise Interrupt
        opened.append(path)
        return LoraFile.open(path)

    return open_file


def test_a_run_that_was_stopped_goes_on(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, targets, concepts = data
    monkeypatch.setattr(updates, "BATCH_BYTES", 1)

    def run(count: int, files: list[Path]) -> tuple[list[Sketches], int]:
        opened: list[Path] = []
        found = list[Sketches]()
        try:
            found = sketch_updates(FileUpdates(files, stopping_after(count, opened)), CONFIG, halves(), tmp_path / "x")
        except Interrupt:
            assert len(opened) == count
        return found, len(opened)

    run(COUNT + 10, paths)  # in the second pass
    (_, again), opened = run(1000, paths)
    assert opened < COUNT
    rows, config = torch.arange(COUNT), CONFIG
    (_, whole) = sketch_updates(FileUpdates(paths), config, halves(), tmp_path / "y")
    for layer in config.layers:
        torch.testing.assert_close(again.features(layer, rows), whole.features(layer, rows))
    assert run(1000, paths)[1] <= 3  # nothing is left to read
    assert run(1000, [*paths[:-1], paths[0]])[1] >= 2 * COUNT  # other files begin anew


def test_what_cannot_be_read_or_kept_is_named(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, targets, _ = data
    loud = save(tmp_path / "loud.safetensors", targets[0], 2, scale=1e6)
    with pytest.raises(FileCorrupt, match="loud.safetensors: layer .* half precision"):
        sketch_updates(FileUpdates([*paths[:3], loud]), CONFIG, [torch.ones(4)], tmp_path / "x")
    monkeypatch.setattr(feature_file.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(CheckpointError, match="free space .* make room"):
        sketch_updates(FileUpdates(paths), CONFIG, [torch.ones(COUNT)], tmp_path / "y")


def some_models() -> tuple[dict[str, Factors], torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    targets = F.normalize(torch.randn(12, 5), dim=-1)
    up = (targets @ torch.randn(5, 16))[:, :, None] + torch.randn(12, 16, 2) / 3
    return {"layer": Factors(torch.randn(12, 2, 14), up)}, targets, torch.arange(12)


def test_a_weight_counts_as_so_many_copies() -> None:
    models, targets, concepts = some_models()
    weights = torch.tensor([1.0, 3.0]).repeat(6)
    copies = torch.arange(12).repeat_interleave(weights.long())
    config = SketchConfig(("layer",), 16, 14, weighted=False, ridge=0.5, rank=5)
    weighted = SketchRegression.fit(models, targets, concepts, config, weights=weights)
    copied = SketchRegression.fit(
        {"layer": models["layer"][copies]},
        targets[copies],
        concepts[copies],
        replace(
            config, ridge=0.5 * float(weights.mean())
        ),  # the errors of copies are summed up, those of weights averaged
    )
    assert cosine(weighted.encode(models), copied.encode(models)) > 0.9999


def test_each_kind_is_centred_on_its_own_mean() -> None:
    """Models of two kinds that differ by a constant are fitted as if they did not, and the first kind is read."""
    models, targets, concepts = some_models()
    config = SketchConfig(("layer",), 16, 14, quadratic=0.0, weighted=False, rank=5)
    fit = SketchRegression.fit(models, targets, concepts, config)
    features, kinds = fit.features("layer", models["layer"]), torch.arange(12) % 2
    features = features - torch.stack([features[kinds == kind].mean(0) for kind in (0, 1)])[kinds]
    shift = torch.randn(features.shape[1])

    def fitted(of_layer: torch.Tensor, kinds: torch.Tensor | None) -> sketches.SketchFit:
        return sketches.fit_to_features(
            lambda layer: of_layer, fit.left, fit.right, targets, concepts, config, kinds=kinds
        )

    expected, shifted = fitted(features, None), features + kinds[:, None] * shift
    own_means = fitted(shifted, kinds)
    assert cosine(own_means.vectors, expected.vectors) > 0.9999
    torch.testing.assert_close(own_means.means["layer"][1], shift, atol=1e-5, rtol=0)
    torch.testing.assert_close(own_means.model.mean["layer"], torch.zeros_like(shift), atol=1e-5, rtol=0)
    assert cosine(fitted(shifted, None).vectors, expected.vectors) < 0.99
