"""Sketches of many models without holding them: files are gone over twice, for the directions and for the features.

Directions come from sums over models, at most ``MAX_MODELS`` of them: one pair of matrices a layer. Where these would
take more than ``SUMS_BYTES``, layers are done in groups, each with two passes over its own bytes of the files. Features
are kept on the disk (see ``feature_file``), with what was found so far, so that a run that was stopped goes on.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.checkpoint import load_checkpoint, save_checkpoint
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.batched_factors import LayerFactors
from loradex.retrieval.probex.directions import Spectrum, leading_eigenvectors
from loradex.retrieval.probex.familiarity import DIRECTIONS, Familiarity, captured_share
from loradex.retrieval.probex.serialization import Shapes
from loradex.retrieval.probex.sketch import SketchConfig, SketchFit, SketchRegression, fit_to_features, sketch
from loradex.retrieval.training.feature_file import FeatureFile
from loradex.retrieval.training.updates import Updates

SUMS_BYTES: Final = 2 * 2**30  # of the sums that directions come from
MAX_MODELS: Final = 2000  # by which directions are found; more change them little, and the cost grows with them
FORMAT: Final = "loradex-directions-1"

Progress = Callable[[int, int], None]  # how much is done, how much there is


def ignore_progress(done: int, total: int) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Sketches:
    """The features of models under directions that were found on some of them.

    Attributes:
        config: the one by which the features were made.
        shapes: (out, in) of each layer.
        left: P by layer (outputs, out).
        right: Q by layer (in, inputs).
        familiar: by layer (DIRECTIONS, out), the leading output directions.
        files: by layer, where its features are; the last column is the share of energy in the familiar directions.
        name: of these directions in the files.
    """

    config: SketchConfig
    shapes: Shapes
    left: dict[str, Tensor]
    right: dict[str, Tensor]
    familiar: dict[str, Tensor]
    files: dict[str, FeatureFile]
    name: str

    def features(self, layer: str, rows: Tensor) -> Tensor:
        """The features (rows, features) of some models in one layer."""
        return self.files[layer].read(block(self.name, layer))[rows, :-1]

    def fit(
        self,
        rows: Tensor,
        targets: Tensor,
        concepts: Tensor,
        config: SketchConfig,
        *,
        weights: Tensor | None = None,
        kinds: Tensor | None = None,
        progress: Progress = ignore_progress,
    ) -> SketchFit:
        """Fit a regression to some models.

        Args:
            rows: the models.
            targets: (rows, dim), of these models, this and the others as in ``fit_to_features``.
            concepts: (rows,).
            config: has the outputs and inputs of the one by which the features were made. It may have other settings
                and fewer layers, and leave the quadratic view out.
            weights: (rows,).
            kinds: (rows,).
            progress: is called with the number of layers that are done.
        """
        return fit_to_features(
            lambda layer: self.views(layer, rows, config),
            self.left,
            self.right,
            targets,
            concepts,
            config,
            weights=weights,
            kinds=kinds,
            progress=progress,
        )

    def encode(self, rows: Tensor, model: SketchRegression, means: Mapping[str, Tensor] | None = None) -> Tensor:
        """Unit vectors (rows, dim) of some models by a regression that was fitted here; ``means`` as there."""
        return model.encode_features(lambda layer: self.views(layer, rows, model.config), means)

    def views(self, layer: str, rows: Tensor, config: SketchConfig) -> Tensor:
        """The features of those views that a config has."""
        features = self.features(layer, rows)
        return features if config.quadratic else features[:, : len(self.left[layer]) * self.right[layer].shape[1]]

    def familiarity(self, rows: Tensor, layers: Sequence[str]) -> Familiarity:
        """How the tree of some models is recognised by some layers."""
        directions = {layer: self.familiar[layer] for layer in layers}
        shares = [
            self.files[layer].read(block(self.name, layer))[rows, -1].mean() - len(found) / found.shape[1]
            for layer, found in directions.items()
        ]
        return Familiarity(directions, max(float(torch.stack(shares).mean()), 1e-6))


def sketch_updates(
    updates: Updates,
    config: SketchConfig,
    fitted_on: Sequence[Tensor],
    folder: Path,
    progress: Progress = ignore_progress,
) -> list[Sketches]:
    """Sketch all models once for each set of models on which directions are found.

    Args:
        updates: the models.
        config: its layers, outputs, inputs, and whether there is a quadratic view, are used.
        fitted_on: for each set (models,), whether a model is in it.
        folder: to keep features in; what an earlier run left there is used if it was of the same files and settings.
        progress: is called with how much was done, and how much there is, in models read.

    Raises:
        FileError: a file cannot be read, or lacks a layer.
        CheckpointError: the folder cannot be written.
    """
    assert config.wide is None, "directions that the targets choose need all models in memory"
    shapes = updates.shapes(config.layers)
    members = torch.stack([sample(rows.bool()) for rows in fitted_on], 1)  # (models, sets)
    groups = group_layers(shapes, len(members.unique(dim=0)))
    digest = settings_digest(updates, config, members)
    if not (folder / digest).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / digest).touch()
    sketches = [Sketches(config, shapes, {}, {}, {}, {}, str(number)) for number in range(members.shape[1])]
    for number, group in enumerate(groups):
        of_group = int(members.any(1).sum()) + len(updates)
        start, total = number * of_group, len(groups) * of_group
        run = GroupRun(updates, replace(config, layers=group), members, shapes, folder, number)
        run.sketch(lambda done, start=start, total=total: progress(start + done, total))  # type: ignore[misc]
        for sketched, found in zip(sketches, run.found, strict=True):
            for layer in group:
                sketched.left[layer], sketched.right[layer] = found[f"{layer}.left"], found[f"{layer}.right"]
                sketched.familiar[layer], sketched.files[layer] = found[f"{layer}.familiar"], run.file
    return sketches


class GroupRun:
    """The two passes over some layers."""

    def __init__(
        self, updates: Updates, config: SketchConfig, members: Tensor, shapes: Shapes, folder: Path, number: int
    ) -> None:
        """Open what an earlier run has left."""
        self.updates, self.config, self.members, self.shapes = updates, config, members, shapes
        self.directions_path = folder / f"directions-{number}.safetensors"
        self.rows_path = folder / f"rows-{number}"
        widths = {
            block(str(name), layer): feature_count(shapes[layer], config) + 1
            for layer in config.layers
            for name in range(members.shape[1])
        }
        self.file = FeatureFile(folder / f"features-{number}", len(updates), widths)
        self.found: list[dict[str, Tensor]] = []  # for each set: P, Q and familiar directions by layer

    def sketch(self, progress: Callable[[int], None]) -> None:
        """Find directions and features, from where an earlier run was stopped; ``progress`` gets models read."""
        try:
            tensors = load_checkpoint(self.directions_path, FORMAT)[1]
        except CheckpointError:
            tensors = self._find_directions(progress)
            self.rows_path.unlink(missing_ok=True)
            save_checkpoint(self.directions_path, FORMAT, {}, tensors)
        self.found = [
            {name.partition("/")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{number}/")}
            for number in range(self.members.shape[1])
        ]
        done, before = 0, int(self.members.any(1).sum())
        with suppress(OSError, ValueError):
            done = int(self.rows_path.read_text())
        for batch in self.updates.batches(self.config.layers, range(done, len(self.updates))):
            self.file.write(done, self._features(batch))
            done += batch_length(batch)
            self.rows_path.write_text(str(done))
            progress(before + done)

    def _find_directions(self, progress: Callable[[int], None]) -> dict[str, Tensor]:
        """The first pass: directions by set and layer.

        Models are summed up by the sets that they are in, so that a model in several sets is read and multiplied once.
        """
        used = torch.nonzero(self.members.any(1)).flatten()
        patterns, pattern_of = self.members[used].unique(dim=0, return_inverse=True)
        layers = self.config.layers
        sums = [{layer: Spectrum(self.shapes[layer]) for layer in layers} for _ in patterns]
        done = 0
        for batch in self.updates.batches(layers, used.tolist()):
            of_batch = pattern_of[done : done + batch_length(batch)]
            for pattern in of_batch.unique().tolist():
                rows = torch.nonzero(of_batch == pattern).flatten()
                for layer, factors in batch.items():
                    sums[pattern][layer].add(factors if len(rows) == len(of_batch) else factors[rows])
            done += len(of_batch)
            progress(done)
        tensors = {}
        for layer in layers:
            of_layer = [by_layer.pop(layer) for by_layer in sums]  # memory is given back layer by layer
            for number in range(patterns.shape[1]):
                spectrum = Spectrum(self.shapes[layer])
                for pattern, part in zip(patterns, of_layer, strict=True):
                    if pattern[number]:
                        spectrum.add_all(part)
                outputs = leading_eigenvectors(spectrum.outputs, max(self.config.outputs, DIRECTIONS)).mT.contiguous()
                tensors[f"{number}/{layer}.left"] = outputs[: self.config.outputs].clone()
                tensors[f"{number}/{layer}.familiar"] = outputs[:DIRECTIONS].clone()
                tensors[f"{number}/{layer}.right"] = leading_eigenvectors(spectrum.inputs, self.config.inputs)
        return tensors

    def _features(self, batch: LayerFactors) -> dict[str, Tensor]:
        """The features of some models by set and layer, and their share of energy in familiar directions."""
        blocks = {}
        for number, found in enumerate(self.found):
            for layer, factors in batch.items():
                views = sketch(factors, found[f"{layer}.left"], found[f"{layer}.right"], self.config)
                share = captured_share(factors, found[f"{layer}.familiar"])
                blocks[block(str(number), layer)] = torch.cat([*views, share[:, None]], 1)
        return blocks


def group_layers(shapes: Shapes, copies: int) -> list[tuple[str, ...]]:
    """Split layers into groups, in their order, whose sums take up to ``SUMS_BYTES`` for so many copies of them."""
    groups, size = [list[str]()], 0
    for layer, shape in shapes.items():
        own = 4 * copies * sum(side**2 for side in shape)
        if groups[-1] and size + own > SUMS_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(layer)
        size += own
    return [tuple(group) for group in groups]


def sample(members: Tensor) -> Tensor:
    """At most ``MAX_MODELS`` of the members (models,) of a set; sets that share members share those drawn, too."""
    drawn = torch.randperm(len(members), generator=torch.Generator().manual_seed(0))
    chosen = torch.zeros_like(members)
    chosen[drawn[members[drawn]][:MAX_MODELS]] = True
    return chosen


def settings_digest(updates: Updates, config: SketchConfig, members: Tensor) -> str:
    """A digest of all that features depend on."""
    settings = config.layers, config.outputs, config.inputs, config.quadratic > 0, SUMS_BYTES
    text = "\n".join([repr(settings), repr(members.int().tolist()), *updates.identity()])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def feature_count(shape: tuple[int, int], config: SketchConfig) -> int:
    """The number of features of a layer (out, in)."""
    outputs, inputs = min(config.outputs, shape[0]), min(config.inputs, shape[1])
    return outputs * inputs + (outputs * (outputs + 1) // 2 if config.quadratic else 0)


def block(name: str, layer: str) -> str:
    """The name of a layer's block in a feature file, under the directions of this name."""
    return f"{name}/{layer}"


def batch_length(batch: LayerFactors) -> int:
    """The number of models in a batch."""
    return len(next(iter(batch.values())))
