"""Training a ProbeX by cross-entropy between weights and the texts of their concepts."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from retrieval.probex.probex import LayerProbe, ProbeX, ProbeXConfig
from retrieval.probex.probing import Factors, bilinear
from retrieval.probex.sketch import widen


@dataclass(frozen=True, slots=True)
class ProbeXTraining:
    """How a ProbeX is trained; the defaults are the paper's (its official code trains on raw cosines: temperature 1)."""

    epochs: int = 200
    batch: int = 128
    lr: float = 2e-3
    temperature: float = 1.0  # cosines are divided by it before the softmax
    unit_responses: bool = False  # scale each layer's factors so that probe responses are of order one
    check_every: int = 10  # epochs between looks at the validation score
    patience: int = 5  # looks without a better score, after which training ends
    seed: int = 0


def train_probex(
    models: Mapping[str, Factors],
    concepts: Tensor,
    texts: Tensor,
    config: ProbeXConfig,
    training: ProbeXTraining,
    validate: Callable[[ProbeX], float] | None = None,
    progress: Callable[[int, float], None] = lambda epoch, score: None,
) -> ProbeX:
    """Train on ``models`` of ``concepts`` (models,), rows of ``texts`` (classes, dim); the best epoch by ``validate``, or without it the last, comes back."""
    torch.manual_seed(training.seed)
    shapes = {layer: (models[layer].up.shape[1], models[layer].down.shape[2]) for layer in config.layers}
    probex = ProbeX(shapes, texts.shape[1], config)
    if training.unit_responses:
        for layer, probe in zip(config.layers, probex.layers, strict=True):
            assert isinstance(probe, LayerProbe)
            probe.gain.fill_(1 / typical_response(models[layer], probe.probes, probe.projection))
    optimizer = torch.optim.Adam(probex.parameters(), lr=training.lr)
    best, best_state, idle = -1.0, copy.deepcopy(probex.state_dict()), 0
    for epoch in range(training.epochs):
        probex.train()
        for rows in torch.randperm(len(concepts)).split(training.batch):
            batch = {layer: widen(models[layer][rows]) for layer in config.layers}
            logits = probex.encode(batch) @ probex.encode_text(texts).T / training.temperature
            loss = F.cross_entropy(logits, concepts[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        if validate and (epoch % training.check_every == training.check_every - 1 or epoch == training.epochs - 1):
            probex.eval()
            with torch.inference_mode():
                score = validate(probex)
            progress(epoch + 1, score)
            idle += 1
            if score > best:
                best, best_state, idle = score, copy.deepcopy(probex.state_dict()), 0
            if idle == training.patience:
                break
    if validate:
        probex.load_state_dict(best_state)
    return probex.eval()


@torch.no_grad()
def typical_response(factors: Factors, probes: Tensor, projection: Tensor) -> float:
    """The root mean square of V dW U over up to 128 models."""
    sample = widen(factors[:128])
    return float(bilinear(sample, projection, probes).square().mean().sqrt())
