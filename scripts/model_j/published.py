"""ProbeX and MVProbe trained as their official code trains them (``train_generative_probex.py`` of both), in factor form.

- A concept's prompt is "a photo of a <name>"; the learned projection of texts takes CLIP's vectors as they are, not at unit length.
- All epochs are run, 200 of ProbeX and 400 of MVProbe, in batches of 128. Every ten epochs the net is looked at, and two are kept: that which names most
  models of ``val`` among training concepts, and that which names most of ``val_holdout`` among all held-out concepts; of equals the last.
- In-distribution figures are of the first, zero-shot figures of the second.

Otherwise than there, the looks come after epochs 10, 20, … and not 1, 11, …; factors are kept in half precision, and products are in bfloat16 where the
hardware is faster so. The official code is in single precision throughout, but for CLIP on a GPU.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import widen
from loradex.retrieval.probex.objective import Contrast, ProbeTraining
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet
from loradex.retrieval.probex.sketch import BATCH
from loradex.retrieval.probex.train import train_probes
from loradex.retrieval.space.text_encoder import TextEncoder, clean
from loradex.retrieval.training.concept_dataset import TRAINING, VALIDATION, Study
from loradex.retrieval.training.fit import ExpertConfig, Fitted, Models

TIE = 1e-9  # what a later look is preferred by
Look = Callable[[int, float], None]  # an epoch, and the share of ``val_holdout`` that is named


@dataclass(frozen=True, slots=True)
class Published:
    """The two nets that the official code keeps: the best on ``val`` and on ``val_holdout``, and the epochs that they are of."""

    seen: Fitted
    unseen: Fitted
    epochs: dict[str, int]


class Exam:
    """What a net is looked at with while it trains."""

    def __init__(self, study: Study, texts: Tensor, layers: tuple[str, ...], training: ProbeTraining) -> None:
        """Take the validation models; without any, the last look is the best."""
        self.texts, self.training = texts, training
        trained, held_out = (
            study.concept[study.rows(TRAINING)].unique(),
            torch.from_numpy(study.candidates("validation", "heldout")),
        )
        rows = {"seen": (study.rows("val"), trained), "unseen": (study.rows(VALIDATION), held_out)}
        self.parts = {
            name: (study.take(some, layers), torch.searchsorted(among, study.concept[some]), among)
            for name, (some, among) in rows.items()
        }
        self.best = dict.fromkeys(rows, -1.0)
        self.epochs = dict.fromkeys(rows, training.epochs)
        self.kept: dict[str, Tensor] = {}
        self.looks = 0

    def __call__(self, net: ProbeNet) -> float:
        """The share of ``val_holdout`` that is named, a trifle more at each look."""
        self.looks += 1
        shares = {
            name: named(net, models, column, self.texts[among]) for name, (models, column, among) in self.parts.items()
        }
        better = {name for name, share in shares.items() if share >= self.best[name]}
        for name in better:
            self.best[name], self.epochs[name] = (
                shares[name],
                min(self.looks * self.training.check_every, self.training.epochs),
            )
        if "seen" in better:
            self.kept = copy.deepcopy(net.state_dict())
        return shares["unseen"] + TIE * self.looks


def train_published(
    study: Study,
    texts: Tensor,
    config: ExpertConfig,
    seed: int,
    device: str = "cpu",
    look: Look = lambda epoch, share: None,
) -> Published:
    """Train on the split ``train`` of a study that has the layers of ``config``; ``texts`` (concepts, dim) are as ``plain_texts`` gives them."""
    assert isinstance(config.model, ProbeConfig)
    rows, layers = study.rows(TRAINING), config.model.layers
    classes, concepts = study.concept[rows].unique(return_inverse=True)
    training = replace(config.training, seed=seed, patience=config.training.epochs + 1)
    exam = Exam(study, texts, layers, training)
    net = train_probes(
        study.take(rows, layers),
        Contrast(concepts, texts[classes][:, None]),
        config.model,
        training,
        exam,
        look,
        device=device,
    )
    first = copy.deepcopy(net)
    first.load_state_dict(exam.kept)
    return Published(with_labels(first, texts), with_labels(net, texts), exam.epochs)


@torch.inference_mode()
def named(net: ProbeNet, models: Models, column: Tensor, texts: Tensor) -> float:
    """The share of models whose own text is the nearest; ``column`` (models,) are rows of ``texts`` (candidates, dim)."""
    if not len(column):
        return 0.0
    device = str(next(net.parameters()).device)
    parts = range(0, len(column), BATCH)
    batches = [
        {layer: widen(models[layer][start : start + BATCH]).to(device) for layer in net.config.layers}
        for start in parts
    ]
    scores = torch.cat([net.encode(batch) for batch in batches]) @ net.encode_text(texts.to(device)).mT
    return float((scores.argmax(1).cpu() == column).float().mean())


@torch.inference_mode()
def with_labels(net: ProbeNet, texts: Tensor) -> Fitted:
    """A net beside the concepts' texts, scored by its cosines."""
    return Fitted(net, net.encode_text(texts), None)


@torch.inference_mode()
def plain_texts(clip: TextEncoder, names: tuple[str, ...]) -> Tensor:
    """CLIP's text vectors (names, dim) as its text tower gives them, not at unit length, averaged over the encoder's templates."""
    vectors = []
    for start in range(0, len(names), BATCH):
        prompts = [
            template.replace("{}", clean(name)) for name in names[start : start + BATCH] for template in clip.templates
        ]
        found = clip.model.encode_text(clip.tokenizer(prompts).to(clip.device)).float().cpu()
        vectors.append(found.unflatten(0, (-1, len(clip.templates))).mean(1))
    return torch.cat(vectors)
