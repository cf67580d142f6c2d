"""Make an expert that was fitted to LoRAs of one making read those of another, of which no label is known.

LoRAs that were grown from the base model and those that people train, or those of two trainers, differ in the mean of
their features, and in how far these scatter. Both are seen in any folder of LoRAs.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import islice
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.directions import Spectrum, leading_eigenvectors
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import DIRECTIONS, Familiarity, captured_share
from loradex.retrieval.probex.sketch import SketchRegression
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.sketches import group_layers

MIN_FILES: Final = 8  # with a layer, for its mean to be taken over
MAX_FILES: Final = 1000  # more change nothing
PRIOR_FILES: Final = 50  # for how many files the expert's own means and covariance count beside those of the files
MAX_RATIO: Final = 4.0  # of standard deviations, which are rough where files are few


def take_over(
    expert: Expert,
    files: Iterable[LoraFile],
    second_moments: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Expert:
    """Return the expert with the feature means, background and familiarity of some LoRAs.

    Args:
        expert: a closed form.
        files: LoRAs of its model tree; those that it cannot read are left out.
        second_moments: also match the standard deviation of each feature.
        progress: is called with the number of files that were gone over, in all passes.

    Raises:
        FileError: a file cannot be read.
        FileUnsupported: there are too few files, or the expert keeps no means.
    """
    model = expert.model
    if not isinstance(model, SketchRegression) or (second_moments and not model.deviation):
        raise FileUnsupported(
            f"{expert.tree}: expected an expert of kind loradex{', with its deviations,' if second_moments else ''} to take the means "
            "of other LoRAs over, found another; train it again with --expert loradex"
        )
    readable = [
        (file, layers) for file in islice(files, MAX_FILES) if (layers := frozenset(expert.readable_layers(file)))
    ]
    if len(readable) < MIN_FILES:
        raise FileUnsupported(
            f"--like: expected at least {MIN_FILES} LoRAs of {expert.family} that the expert {expert.tree} reads, found {len(readable)}; "
            "name a folder with more, or leave --like out"
        )
    mean, weight = dict(model.mean), dict(model.weight)
    directions, shares = dict(expert.familiarity.directions), list[Tensor]()
    outputs = torch.zeros(len(readable), model.basis.shape[0])
    groups = group_layers({layer: expert.shapes[layer] for layer in expert.layers}, 3)
    for number, group in enumerate(groups):

        def report(done: int, past: int = 2 * number) -> None:
            progress(past * len(readable) + done, 2 * len(groups) * len(readable))

        found = LayerMoments(model, expert, group)
        for row, (file, layers) in enumerate(readable):
            found.add(row, read(file, layers, group))
            report(row + 1)
        found.find_directions()
        directions |= found.directions
        for row, (file, layers) in enumerate(readable):
            shares += found.captured(row, read(file, layers, group))
            report(len(readable) + row + 1)
        for layer in found.features:
            rows, features = torch.tensor(found.rows[layer]), torch.cat(found.features[layer])
            mean[layer] = shrunk(features.mean(0), model.mean[layer], len(features))
            if second_moments:
                ratio = model.deviation[layer] / features.std(0).clamp_min(torch.finfo().tiny)
                weight[layer] = model.weight[layer] * ratio.clamp(1 / MAX_RATIO, MAX_RATIO)[:, None]
            outputs[rows] += (features - mean[layer]) @ weight[layer]
    background = shrunk_background(F.normalize(outputs @ model.basis, dim=-1), expert.calibration.background)
    familiarity = Familiarity(directions, max(float(torch.stack(shares).mean()), 1e-6))
    return replace(
        expert,
        model=replace(model, mean=mean, weight=weight),
        calibration=replace(expert.calibration, background=background),
        familiarity=familiarity if shares else expert.familiarity,
    )


class LayerMoments:
    """What the LoRAs tell of some layers.

    Attributes:
        rows: by layer, the numbers of the files that have it.
        features: by layer, the features (1, features) of each of these files.
        directions: by layer, the leading output directions of all these files.
    """

    def __init__(self, model: SketchRegression, expert: Expert, layers: tuple[str, ...]) -> None:
        """Begin with no file."""
        self.model = model
        self.rows: dict[str, list[int]] = {layer: [] for layer in layers}
        self.features: dict[str, list[Tensor]] = {layer: [] for layer in layers}
        self.halves = [{layer: Spectrum(expert.shapes[layer]) for layer in layers} for _ in range(2)]
        self.directions: dict[str, Tensor] = {}
        self.directions_of_halves: list[dict[str, Tensor]] = [{}, {}]

    def add(self, row: int, updates: dict[str, Factors]) -> None:
        """Add file number ``row``."""
        for layer, factors in updates.items():
            self.rows[layer].append(row)
            self.features[layer].append(self.model.features(layer, factors))
            self.halves[row % 2][layer].add(factors)

    def find_directions(self) -> None:
        """Find the output directions of all files and of each half; layers of too few files are forgotten."""
        self.features = {layer: rows for layer, rows in self.features.items() if len(rows) >= MIN_FILES}
        for layer in self.features:
            first, second = (half.pop(layer) for half in self.halves)
            for half, spectrum in zip(self.directions_of_halves, (first, second), strict=True):
                half[layer] = leading_outputs(spectrum)
            first.add_all(second)
            self.directions[layer] = leading_outputs(first)

    def captured(self, row: int, updates: dict[str, Factors]) -> list[Tensor]:
        """The share of a file's energy in the directions of the half that it is not in, less that by chance.

        A few files fill the directions that were found on them more than any other file does.
        """
        directions = self.directions_of_halves[1 - row % 2]
        return [
            captured_share(factors, directions[layer])[0] - len(directions[layer]) / directions[layer].shape[1]
            for layer, factors in updates.items()
            if layer in directions
        ]


def read(file: LoraFile, layers: frozenset[str], group: tuple[str, ...]) -> dict[str, Factors]:
    """The updates of those layers of a group that an expert reads of a file."""
    return {layer: Factors.stack([update]) for layer, update in file.updates([x for x in group if x in layers]).items()}


def leading_outputs(spectrum: Spectrum) -> Tensor:
    """The leading output directions (DIRECTIONS, out)."""
    return leading_eigenvectors(spectrum.outputs, DIRECTIONS).mT.contiguous()


def shrunk_background(vectors: Tensor, prior: Background) -> Background:
    """The background of vectors (models, dim), of which few tell little, so that a prior helps."""
    own, count = Background.fit(vectors), len(vectors)
    return replace(
        own,
        mean=shrunk(own.mean, prior.mean, count),
        covariance=shrunk(own.covariance, prior.covariance, count),
    )


def shrunk(found: Tensor, prior: Tensor, count: int) -> Tensor:
    """What ``count`` files show, moved towards what was known before."""
    return (count * found + PRIOR_FILES * prior) / (count + PRIOR_FILES)
