"""Choose the expert that reads a file: by its layers, and among model trees with the same layers by its weights."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileUnsupported, NoExpert, NoExpertReason
from loradex.retrieval.lora import FullModel, LoraFile, WeightsFile
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import MIN_FAMILIARITY
from loradex.retrieval.ways_to_expert import ways

AnyExpert = Expert | CategoryExpert

COMPARED_LAYERS: Final = 4  # by which the distance to a base model is measured


@dataclass(frozen=True, slots=True)
class Router:
    """Chooses among the experts of an encoder.

    Attributes:
        experts: by model tree.
        bases: by model tree, the file of the base model's weights, where there is one.
    """

    experts: Mapping[str, AnyExpert]
    bases: Mapping[str, Path]

    def open(self, path: str | Path) -> WeightsFile:
        """Open a LoRA, or a full model as its difference to the nearest base model with the same layers.

        Raises:
            FileError: it is neither, or cannot be read.
        """
        try:
            return LoraFile.open(path)
        except FileUnsupported:
            models = list(self._open_with_each_base(path))
            if not models:
                raise
            if len(models) == 1:
                return models[0]
            # distances to different bases are measured by the same layers where there are any
            shared = set.intersection(*(set(model.layers) for model in models))
            return min(models, key=lambda model: distance_to_base(model, shared or self._layers_read(model)))

    def _open_with_each_base(self, path: str | Path) -> Iterator[FullModel]:
        """The file as a fine-tune of each base model that has the same layers."""
        for tree, base in self.bases.items():
            try:
                yield FullModel.open(path, base, self.experts[tree].family)
            except FileUnsupported:
                continue

    def _layers_read(self, model: FullModel) -> Collection[str]:
        """The layers read by the expert of the base model that a full model was opened with."""
        return next(self.experts[tree].layers for tree, base in self.bases.items() if base == model.base.path)

    def route(self, model: WeightsFile) -> tuple[AnyExpert, dict[str, Factors]]:
        """Choose the expert of a file's model tree, and read the layers that it needs.

        Raises:
            NoExpert: no expert reads the family, the file lacks layers, or its weights are those of another base model.
            FileCorrupt: the weights cannot be used.
        """
        kind = AnyExpert if isinstance(model, FullModel) else Expert
        of_family = [
            expert for expert in self.experts.values() if expert.family == model.family and isinstance(expert, kind)
        ]
        if not of_family:
            families = ", ".join(sorted({expert.family for expert in self.experts.values()})) or "none"
            raise NoExpert(
                f"{model.path}: expected a model of a family with an expert ({families}), found family {model.family}; "
                f"{ways(NoExpertReason.FAMILY, [model.family])}",
                NoExpertReason.FAMILY,
            )
        candidates = [expert for expert in of_family if expert.readable_layers(model)]
        if not candidates:
            layer, shape = next(
                (layer, shape) for layer, shape in of_family[0].shapes.items() if model.shapes.get(layer) != shape
            )
            raise NoExpert(
                f"{model.path}: expected layer {layer} of {shape}, found {model.shapes.get(layer, 'none')}; the model was trained on other layers: "
                f"{ways(NoExpertReason.LAYERS, [model.family])}",
                NoExpertReason.LAYERS,
            )
        if isinstance(model, FullModel):
            return self._route_by_base(model, candidates)
        return self._route_by_familiarity(model, [expert for expert in candidates if isinstance(expert, Expert)])

    def _route_by_base(self, model: FullModel, candidates: list[AnyExpert]) -> tuple[AnyExpert, dict[str, Factors]]:
        """The expert of the base model that a full model was opened with, if the model lies near enough to it."""
        distance = distance_to_base(model, self._layers_read(model))
        of_base = [expert for expert in candidates if self.bases.get(expert.tree) == model.base.path]
        if not of_base or distance > of_base[0].max_distance:
            limit = f" ({of_base[0].max_distance:.0%} is the most)" if of_base else ""
            draws = any(isinstance(expert, Expert) for expert in candidates)
            how = ways(NoExpertReason.STRANGER if draws else NoExpertReason.KIND, [model.family])
            raise NoExpert(
                f"{model.path}: expected a model fine-tuned from {model.base.path}, found weights at a distance of {distance:.0%} "
                f"of that model's length{limit}; it has another base model: {how}",
                NoExpertReason.STRANGER,
            )
        return of_base[0], of_base[0].read_layers([model])

    def _route_by_familiarity(self, lora: LoraFile, candidates: list[Expert]) -> tuple[Expert, dict[str, Factors]]:
        """The expert that a LoRA's updates are most familiar to."""
        layers = {expert.tree: expert.read_layers([lora]) for expert in candidates}
        scores = {expert.tree: float(expert.familiarity.scores(layers[expert.tree])) for expert in candidates}
        best = max(candidates, key=lambda expert: scores[expert.tree])
        if scores[best.tree] < MIN_FAMILIARITY:
            listed = ", ".join(f"{tree} {score:.2f}" for tree, score in scores.items())
            raise NoExpert(
                f"{lora.path}: expected updates like those of a known model tree (familiarity of {MIN_FAMILIARITY} to 1), found {listed}; "
                f"it is of another base model of this family: {ways(NoExpertReason.STRANGER, [lora.family])}",
                NoExpertReason.STRANGER,
            )
        return best, layers[best.tree]


def distance_to_base(model: FullModel, layers: Iterable[str]) -> float:
    """Relative distance |W - W0| / |W0| of a full model to its base, by the first ``COMPARED_LAYERS`` of ``layers``.

    Infinity if the model has none of the layers.
    """
    compared = sorted(set(layers).intersection(model.layers))[:COMPARED_LAYERS]
    return model.distance(compared) if compared else math.inf
