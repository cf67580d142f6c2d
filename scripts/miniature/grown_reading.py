"""Steps ``reading-grown-a`` and ``reading-grown-b``: how well grown experts read real LoRAs.

Settings are compared on LoRAs of validation concepts, with what is grown of training concepts, by one seed. What was
chosen is then measured on the shipped LoRAs of held-out concepts, over three seeds, each of which draws nine tenths of
the LoRAs that an expert is fitted to, as for the experts of whole fleets (``heldout``).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.app.experts.lora_training import encode_pictures_beside
from loradex.app.growing.lora_growing import GRADIENT_RIDGE
from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.gallery import HELD_OUT, Gallery
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.space.calibration import Background
from loradex.retrieval.training.concept_dataset import WORD_SHARE, towards_words
from loradex.retrieval.training.labelled_loras import find_labelled_loras
from loradex.retrieval.training.sketches import Sketches, sketch_updates
from loradex.retrieval.training.take_over import shrunk, shrunk_background
from loradex.retrieval.training.updates import FileUpdates
from scripts.miniature.ablation import SEEDS
from scripts.miniature.fleet_dataset import drawing_vectors
from scripts.miniature.grown import real_folder
from scripts.miniature.settings import Build, atomic, log

SHARE = 0.9  # of the LoRAs that a seed draws
BESIDE = (20, 50, 100, 200)  # real labelled LoRAs beside grown ones
LEARNING_CURVE = (83, 166, 331)  # words, of which all LoRAs count
TRAINED, GRADIENT, REAL = 0, 1, 2  # how LoRAs were made


@dataclass(frozen=True, slots=True)
class Case:
    """An expert to measure.

    Attributes:
        name: of the line in the table.
        grown: ``TRAINED``, ``GRADIENT`` or None for real LoRAs alone.
        settings: of the closed form.
        words: how many of the words, by the order of a seed; None for all.
        copies: how many LoRAs of each word.
        real: how many real labelled LoRAs stand beside.
        weight: of a grown LoRA beside real ones.
        own_means: whether grown and real LoRAs are each centred on their own mean.
        like: whether means and background are those of the LoRAs that are read, whose labels are unknown.
        word_share: of the words in the targets of grown LoRAs; the rest is of their pictures.
    """

    name: str
    grown: int | None = TRAINED
    settings: Mapping[str, Any] = field(default_factory=dict)
    words: int | None = None
    copies: int = 2
    real: int = 0
    weight: float = 0.3
    own_means: bool = True
    like: bool = False
    word_share: float = WORD_SHARE


def chosen_cases() -> Iterator[Case]:
    """What is measured on held-out concepts."""
    gradient = {"ridge": GRADIENT_RIDGE}
    yield Case("the base alone: short trainings")
    yield Case("the base alone: short trainings, one a word", copies=1)
    for words in LEARNING_CURVE:
        yield Case(f"the base alone: short trainings, {words} words", words=words)
    yield Case("the base alone: gradients", GRADIENT, gradient)
    yield Case("short trainings, like LoRAs without labels", like=True)
    yield Case("gradients, like LoRAs without labels", GRADIENT, gradient, like=True)
    for count in BESIDE:
        yield Case(f"short trainings beside {count} real LoRAs", real=count)
        yield Case(f"{count} real LoRAs alone", None, real=count)


def compared_cases() -> Iterator[Case]:
    """What is compared on validation concepts."""
    yield from chosen_cases()
    for ridge in (0.1, 1.0):
        yield Case(f"short trainings: ridge {ridge}", settings={"ridge": ridge})
    for quadratic in (0.0, 1.0):
        yield Case(f"short trainings: quadratic view at {quadratic}", settings={"quadratic": quadratic})
    for share in (0.0, 0.1, 0.3, 0.5, 1.0):
        yield Case(f"short trainings: {share} of the words in the targets", word_share=share)
    for ridge, quadratic in ((0.3, 0.5), (1.0, 0.0), (3.0, 0.0)):
        yield Case(
            f"gradients: ridge {ridge}, quadratic view at {quadratic}",
            GRADIENT,
            {"ridge": ridge, "quadratic": quadratic},
        )
    for weight in (0.1, 1.0):
        yield Case(f"short trainings beside 100 real LoRAs, at a weight of {weight}", real=100, weight=weight)
    yield Case("short trainings beside 100 real LoRAs, one mean for both", real=100, own_means=False)


class GrownReading:
    """Grown and real LoRAs of one base model, sketched once, and the concepts of the miniature."""

    def __init__(self, build: Build, fleet: str) -> None:
        """Read all LoRAs."""
        encoder, concepts = Encoder.load(MINIATURE / "encoder"), json.loads((build / "concepts.json").read_text())
        self.names = [concept["label"] for concept in concepts]
        self.concept_split = np.array([concept["split"] for concept in concepts])
        self.texts = encoder.encode_texts(self.names)
        shipped = MINIATURE / "models" / f"mini-{fleet}"
        folders = {
            build / f"grown-{fleet}": TRAINED,
            build / f"grown-{fleet}-gradients": GRADIENT,
            real_folder(build, fleet, "train"): REAL,
            real_folder(build, fleet, "val_holdout"): REAL,
            shipped: REAL,
        }
        files = [
            (file, kind) for folder, kind in folders.items() if folder.exists() for file in find_labelled_loras(folder)
        ]
        self.paths = [file.path for file, _ in files]
        self.kind = torch.tensor([kind for _, kind in files])
        self.concept = torch.tensor([self.names.index(file.class_name) for file, _ in files])
        self.copy = torch.tensor([copy_of(path) for path in self.paths])
        self.is_test = torch.tensor([shipped in path.parents for path in self.paths])
        self.targets = self.picture_targets(build, encoder)
        self.split = np.array([file.split for file, _ in files])
        layers = tuple(LoraFile.open(self.paths[0]).layers)
        sets = [
            self.kind == TRAINED,
            self.kind == GRADIENT,
            self.of_training(),
            self.of_training() | (self.kind == TRAINED),
        ]
        folder = build / f"sketches-grown-{fleet}"
        self.sketches = sketch_updates(FileUpdates(self.paths), SketchConfig(layers), sets, folder)

    def of_training(self) -> Tensor:
        """Whether a LoRA (models,) is a real one of a training concept, with a known label."""
        of_training = torch.from_numpy(self.concept_split[self.concept.numpy()] == "train")
        return (self.kind == REAL) & of_training & ~self.is_test

    def picture_targets(self, build: Build, encoder: Encoder) -> Tensor:
        """Vectors (models, dim) of the pictures that each LoRA was made of; zero for those that ship."""
        targets = torch.zeros(len(self.paths), encoder.space.dim)
        for row, vector in encode_pictures_beside(self.paths, encoder, lambda done: None).items():
            targets[row] = vector
        drawings = encoder.space.centre_pictures(drawing_vectors(build))
        for row in torch.nonzero((self.kind == REAL) & ~self.is_test).flatten().tolist():
            recipe = json.loads(LoraFile.open(self.paths[row]).header.metadata["recipe"])
            targets[row] = drawings[recipe["drawings"]].mean(0)
        return F.normalize(targets, dim=-1)

    def measure(self, case: Case, seed: int, *, validate: bool) -> dict[str, Any]:
        """Metrics of one expert: on LoRAs of validation concepts, or on those that ship."""
        sketches, rows = self.fitted(case, seed, validate=validate)
        kinds = (self.kind[rows] != REAL).long() if case.own_means and case.real else None
        weights = torch.where(self.kind[rows] == REAL, 1.0, case.weight if case.real else 1.0)
        words, pictures = self.texts[self.concept[rows]], self.targets[rows]
        grown = (self.kind[rows] != REAL)[:, None]
        targets = torch.where(grown, towards_words(pictures, words, case.word_share), pictures)
        config = SketchConfig(sketches.config.layers, **{"rank": 40} | dict(case.settings))
        fit = sketches.fit(rows, targets, self.concept[rows], config, weights=weights, kinds=kinds)
        read = self.test_rows(validate=validate)
        means, background = None, Background.fit(fit.vectors)
        if case.like:
            means = {
                layer: shrunk(sketches.views(layer, read, config).mean(0), fit.model.mean[layer], len(read))
                for layer in fit.model.config.layers
            }
        vectors = sketches.encode(read, fit.model, means)
        if case.like:
            background = shrunk_background(vectors, background)
        return {
            key: asdict(metric)
            for key, metric in self.gallery(read, validate)
            .ranking_metrics(background.z_scores(vectors, self.texts))
            .items()
        }

    def fitted(self, case: Case, seed: int, *, validate: bool) -> tuple[Sketches, Tensor]:
        """The LoRAs that a case is fitted to, and their sketches under directions found on LoRAs of their making."""
        rng = np.random.default_rng(seed)
        concepts = np.flatnonzero(self.concept_split == "train" if validate else self.concept_split != "heldout")
        concepts = rng.permutation(concepts)[: case.words]
        allowed = torch.from_numpy(np.isin(self.concept.numpy(), concepts))
        grown = torch.nonzero((self.kind == case.grown) & (self.copy < case.copies) & allowed).flatten().numpy()
        grown = np.sort(rng.permutation(grown)[: round(SHARE * len(grown))]) if case.words is None else grown
        real = rng.permutation(torch.nonzero(self.of_training()).flatten().numpy())[: case.real]
        directions = case.grown if case.grown is not None and not case.real else 2 + (case.grown is not None)
        return self.sketches[directions], torch.from_numpy(np.concatenate([grown, real]))

    def test_rows(self, *, validate: bool) -> Tensor:
        """The LoRAs that are read."""
        if validate:
            return torch.from_numpy(np.flatnonzero((self.kind == REAL).numpy() & (self.split == "val_holdout")))
        return torch.nonzero(self.is_test).flatten()

    def gallery(self, rows: Tensor, validate: bool) -> Gallery:
        """The labels of the LoRAs that are read."""
        split, concept_split = self.split[rows], self.concept_split
        if validate:  # what is measured are the models of the split that the gallery calls held out
            split = np.full(len(rows), HELD_OUT)
            concept_split = np.where(self.concept_split == "validation", "heldout", "train")
        return Gallery(concept_split, self.concept[rows].numpy(), split)


def copy_of(path: Path) -> int:
    """The number of a LoRA among those of its word, from 0."""
    suffix = path.parent.suffix.removeprefix(".")
    return int(suffix) - 1 if suffix.isdecimal() and len(suffix) == 1 else 0


def measure_grown(build: Build, fleet: str) -> None:
    """Write ``grown-<fleet>.json``; what was measured is kept."""
    path = build / f"grown-{fleet}.json"
    results: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    done = {(row["expert"], row["concepts"], row["seed"]) for row in results}
    reading = GrownReading(build, fleet)
    for cases, concepts in (compared_cases(), "validation"), (chosen_cases(), "held out"):
        for case in (case for case in cases if case.real <= int(reading.of_training().sum())):
            for seed in SEEDS[:1] if concepts == "validation" else SEEDS:
                if (case.name, concepts, seed) in done:
                    continue
                metrics = reading.measure(case, seed, validate=concepts == "validation")
                results.append({"expert": case.name, "concepts": concepts, "seed": seed, "metrics": metrics})
                shown = {key: round(100 * metric["value"], 1) for key, metric in metrics.items()}
                log.info("grown %s, %s, seed %d, %s: %s", fleet, concepts, seed, case.name, shown)
                with atomic(path) as temporary:
                    temporary.write_text(json.dumps(results, indent=1))
