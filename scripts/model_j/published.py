"""ProbeX and MVProbe trained as in their official code (``train_generative_probex.py`` of both), in factor form.

- A concept's prompt is "a photo of a <name>"; the learned projection of texts takes CLIP's vectors as they are, not at
  unit length.
- All epochs are run, 200 of ProbeX and 400 of MVProbe, in batches of 128. Every ten epochs the net is checked, and two
  nets are kept: the best on ``val`` among training concepts, and the best on ``val_holdout`` among all held-out
  concepts; of equal checks the last.
- In-distribution metrics are of the first, zero-shot metrics of the second.

There are three differences: checks come after epochs 10, 20, … and not 1, 11, …; factors are kept in half precision;
and products are in bfloat16 if the hardware is faster so. The official code is in single precision throughout, except
for CLIP on a GPU.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import LayerFactors, to_float32
from loradex.retrieval.probex.directions import BATCH
from loradex.retrieval.probex.objective import ContrastiveObjective, ProbeTraining
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet
from loradex.retrieval.probex.train import train_probes
from loradex.retrieval.space.text_encoder import TextEncoder, normalize_text
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, ConceptDataset
from loradex.retrieval.training.expert_config import ExpertConfig
from loradex.retrieval.training.fit import FittedModel

TIE_BONUS = 1e-9  # per check, so that the last of equal checks wins
EpochCallback = Callable[[int, float], None]  # an epoch, and the top-1 accuracy on ``val_holdout``


@dataclass(frozen=True, slots=True)
class PublishedNets:
    """The two nets that the official code keeps, the best on ``val`` and on ``val_holdout``, and their epochs."""

    seen: FittedModel
    unseen: FittedModel
    epochs: dict[str, int]


class Validator:
    """Checks a net while it trains, and keeps the best weights for seen concepts."""

    def __init__(
        self, dataset: ConceptDataset, texts: Tensor, layers: tuple[str, ...], training: ProbeTraining
    ) -> None:
        """Take the validation models of a dataset; without any, the last check is the best."""
        self.texts, self.training = texts, training
        training_concepts, heldout_concepts = (
            dataset.concept[dataset.rows(TRAINING)].unique(),
            torch.from_numpy(dataset.concepts_of("validation", "heldout")),
        )
        rows = {
            "seen": (dataset.rows("val"), training_concepts),
            "unseen": (dataset.rows(VALIDATION), heldout_concepts),
        }
        self.validation_sets = {
            name: (dataset.take(models, layers), torch.searchsorted(candidates, dataset.concept[models]), candidates)
            for name, (models, candidates) in rows.items()
        }
        self.best = dict.fromkeys(rows, -1.0)
        self.epochs = dict.fromkeys(rows, training.epochs)
        self.best_state: dict[str, Tensor] = {}
        self.checks = 0

    def __call__(self, net: ProbeNet) -> float:
        """The top-1 accuracy on ``val_holdout``, plus a small bonus for later checks."""
        self.checks += 1
        accuracies = {
            name: top1_accuracy(net, models, labels, self.texts[candidates])
            for name, (models, labels, candidates) in self.validation_sets.items()
        }
        improved = {name for name, accuracy in accuracies.items() if accuracy >= self.best[name]}
        for name in improved:
            self.best[name], self.epochs[name] = (
                accuracies[name],
                min(self.checks * self.training.check_every, self.training.epochs),
            )
        if "seen" in improved:
            self.best_state = copy.deepcopy(net.state_dict())
        return accuracies["unseen"] + TIE_BONUS * self.checks


def train_published(
    dataset: ConceptDataset,
    texts: Tensor,
    config: ExpertConfig,
    seed: int,
    device: str = "cpu",
    on_check: EpochCallback = lambda epoch, accuracy: None,
) -> PublishedNets:
    """Train on the split ``train`` of a dataset that has the layers of ``config``.

    ``texts`` (concepts, dim) are those of ``unnormalised_texts``.
    """
    assert isinstance(config.model, ProbeConfig)
    rows, layers = dataset.rows(TRAINING), config.model.layers
    classes, concepts = dataset.concept[rows].unique(return_inverse=True)
    training = replace(config.training, seed=seed, patience=config.training.epochs + 1)
    validator = Validator(dataset, texts, layers, training)
    net = train_probes(
        dataset.take(rows, layers),
        ContrastiveObjective(concepts, texts[classes][:, None]),
        config.model,
        training,
        validator,
        on_check,
        device=device,
    )
    net_for_seen = copy.deepcopy(net)
    net_for_seen.load_state_dict(validator.best_state)
    return PublishedNets(with_text_labels(net_for_seen, texts), with_text_labels(net, texts), validator.epochs)


@torch.inference_mode()
def top1_accuracy(net: ProbeNet, models: LayerFactors, labels: Tensor, texts: Tensor) -> float:
    """The share of models whose own text is the nearest.

    ``labels`` (models,) are rows of ``texts`` (candidates, dim).
    """
    if not len(labels):
        return 0.0
    device = str(next(net.parameters()).device)
    starts = range(0, len(labels), BATCH)
    batches = [
        {layer: to_float32(models[layer][start : start + BATCH]).to(device) for layer in net.config.layers}
        for start in starts
    ]
    scores = torch.cat([net.encode(batch) for batch in batches]) @ net.encode_text(texts.to(device)).mT
    return float((scores.argmax(1).cpu() == labels).float().mean())


@torch.inference_mode()
def with_text_labels(net: ProbeNet, texts: Tensor) -> FittedModel:
    """A net with the concepts' texts as labels, scored by cosines."""
    return FittedModel(net, net.encode_text(texts), None)


@torch.inference_mode()
def unnormalised_texts(clip: TextEncoder, names: tuple[str, ...]) -> Tensor:
    """CLIP's text vectors (names, dim), not at unit length, averaged over the encoder's templates."""
    vectors = []
    for start in range(0, len(names), BATCH):
        prompts = [
            template.replace("{}", normalize_text(name))
            for name in names[start : start + BATCH]
            for template in clip.templates
        ]
        encoded = clip.model.encode_text(clip.tokenizer(prompts).to(clip.device)).float().cpu()
        vectors.append(encoded.unflatten(0, (-1, len(clip.templates))).mean(1))
    return torch.cat(vectors)
