"""A file -> the expert of its model tree: by structure, and among trees of one structure by the weights."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileUnsupported, NoExpert
from loradex.retrieval.lora import LoraFile, WeightsFile, WholeModel
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import FAMILIAR

Reader = Expert | CategoryExpert

COMPARED: Final = 4  # layers


@dataclass(frozen=True, slots=True)
class Router:
    """The experts that are at hand.

    Attributes:
        experts: by model tree.
        bases: the weights of the base model, for the trees that have them at hand.
    """

    experts: Mapping[str, Reader]
    bases: Mapping[str, Path]

    def open(self, path: str | Path) -> WeightsFile:
        """A LoRA, or a whole model beside the nearest base model of its structure.

        Raises:
            FileError: it is neither, or cannot be read.
        """
        try:
            return LoraFile.open(path)
        except FileUnsupported:
            models = list(self._descents(path))
            if not models:
                raise
            shared = set.intersection(
                *(set(model.layers) for model in models)
            )  # so that distances of different bases are of the same layers
            return (
                min(models, key=lambda model: compared_distance(model, shared or self._read(model)))
                if len(models) > 1
                else models[0]
            )

    def _descents(self, path: str | Path) -> Iterator[WholeModel]:
        """The file beside each base model of its structure."""
        for tree, base in self.bases.items():
            try:
                yield WholeModel.open(path, base, self.experts[tree].family)
            except FileUnsupported:
                continue

    def _read(self, model: WholeModel) -> Collection[str]:
        """The layers that the expert of the base reads, beside which a whole model was opened."""
        return next(self.experts[tree].layers for tree, base in self.bases.items() if base == model.base.path)

    def route(self, model: WeightsFile) -> tuple[Reader, dict[str, Factors]]:
        """The expert of a file's model tree, and the layers that it reads.

        Raises:
            NoExpert: there is none, the file lacks layers that are needed, or its weights are those of no tree that is known.
            FileCorrupt: the weights cannot be used.
        """
        kind = Reader if isinstance(model, WholeModel) else Expert
        of_family = [
            expert for expert in self.experts.values() if expert.family == model.family and isinstance(expert, kind)
        ]
        if not of_family:
            known = ", ".join(sorted({expert.family for expert in self.experts.values()})) or "none"
            raise NoExpert(
                f"{model.path}: expected a model of a family with an expert ({known}), found family {model.family}; train an expert for it"
            )
        able = [expert for expert in of_family if expert.readable(model)]
        if not able:
            layer, shape = next(
                (layer, shape) for layer, shape in of_family[0].shapes.items() if model.shapes.get(layer) != shape
            )
            raise NoExpert(
                f"{model.path}: expected layer {layer} of {shape}, found {model.shapes.get(layer)}; the model was trained on other layers"
            )
        if isinstance(model, WholeModel):
            return self._of_base(model, able)
        return self._of_updates(model, [expert for expert in able if isinstance(expert, Expert)])

    def _of_base(self, model: WholeModel, able: list[Reader]) -> tuple[Reader, dict[str, Factors]]:
        """The expert of the base model that a whole model lies near."""
        away, of_base = (
            compared_distance(model, self._read(model)),
            [expert for expert in able if self.bases.get(expert.tree) == model.base.path],
        )
        if not of_base or away > of_base[0].reach:
            reach = f" ({of_base[0].reach:.0%} is the most)" if of_base else ""
            raise NoExpert(
                f"{model.path}: expected a model fine-tuned from {model.base.path}, found weights that lie {away:.0%} of its own length away from it{reach}; "
                f"it has another base model, train an expert for that"
            )
        return of_base[0], of_base[0].read([model])

    def _of_updates(self, lora: LoraFile, able: list[Expert]) -> tuple[Expert, dict[str, Factors]]:
        """The expert to which a LoRA's updates look the most familiar."""
        read = {expert.tree: expert.read([lora]) for expert in able}
        familiar = {expert.tree: float(expert.familiarity.of_models(read[expert.tree])) for expert in able}
        nearest = max(able, key=lambda expert: familiar[expert.tree])
        if familiar[nearest.tree] < FAMILIAR:
            looks = ", ".join(f"{tree} {value:.2f}" for tree, value in familiar.items())
            raise NoExpert(
                f"{lora.path}: expected updates like those of a known tree (familiarity of {FAMILIAR} to 1), found {looks}; "
                f"it is of another base model of this family, train an expert for that"
            )
        return nearest, read[nearest.tree]


def compared_distance(model: WholeModel, layers: Iterable[str]) -> float:
    """How far a whole model lies from its base by the first of some layers that it has, relative to the base; endlessly far if it has none."""
    there = sorted(set(layers).intersection(model.layers))[:COMPARED]
    return model.distance(there) if there else math.inf
