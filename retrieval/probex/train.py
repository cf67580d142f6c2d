"""Training of learned probes: Adam, early stopping, and resuming after a killed run."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors, to_float32
from loradex.retrieval.probex.objective import Objective, ProbeTraining
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet

Validate = Callable[[ProbeNet], float]


def train_probes(
    models: Mapping[str, Factors],
    objective: Objective,
    config: ProbeConfig,
    training: ProbeTraining,
    validate: Validate | None = None,
    progress: Callable[[int, float], None] = lambda epoch, score: None,
    state: Path | None = None,
    device: str = "cpu",
) -> ProbeNet:
    """Train a net on ``models``; return the epoch with the best validation score, or the last one without validation.

    Args:
        models: the packed factors of each layer.
        objective: the loss.
        config: of the net.
        training: epochs, rates and early stopping.
        validate: scores a net; higher is better.
        progress: is called with the epoch and the score after each validation.
        state: a file for the progress, from which a killed run resumes and ends with the same weights.
        device: to train on.
    """
    torch.manual_seed(training.seed)
    shapes = {layer: models[layer].shape for layer in config.layers}
    net = ProbeNet(shapes, objective.target_dim, config).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True)
    settings = {
        "config": asdict(config),
        "training": asdict(training),
        "models": data_digest(models),
        "early stop": validate is not None,
    }
    run = TrainingState(net, optimizer, state, settings)
    for epoch, score in run.validations:
        progress(epoch, score)
    while run.epoch < training.epochs and run.checks_without_gain < training.patience:
        torch.manual_seed(hash((training.seed, run.epoch)))  # per epoch, so that a resumed run draws the same numbers
        net.train()
        for rows in torch.randperm(len(objective)).split(training.batch):
            batch = {layer: to_float32(models[layer][rows]).to(device) for layer in config.layers}
            loss = objective.loss(net, batch, rows, training, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        run.epoch += 1
        if validate and (run.epoch % training.check_every == 0 or run.epoch == training.epochs):
            net.eval()
            with torch.inference_mode():
                score = validate(net)
            run.record(score)
            progress(run.epoch, score)
        if run.epoch % training.check_every == 0:
            run.save()
    if run.best_weights:
        net.load_state_dict(run.best_weights)
    return net.eval().cpu()


def data_digest(models: Mapping[str, Factors]) -> str:
    """A digest of the first, the middle and the last model, by which a resumed run recognises its training data."""
    digest = hashlib.sha256()
    for layer, factors in sorted(models.items()):
        digest.update(f"{layer} {tuple(factors.up.shape)} {tuple(factors.down.shape)}\n".encode())
        for row in (0, len(factors) // 2, len(factors) - 1):
            digest.update(factors.up[row].double().numpy().tobytes() + factors.down[row].double().numpy().tobytes())
    return digest.hexdigest()


class TrainingState:
    """What a run needs to resume: weights, optimizer, epoch, validations, and the best weights so far."""

    def __init__(
        self, net: ProbeNet, optimizer: torch.optim.Optimizer, path: Path | None, settings: dict[str, Any]
    ) -> None:
        """Load the state in ``path`` if it is of the same settings."""
        self.net, self.optimizer, self.path, self.settings = net, optimizer, path, repr(settings)
        self.epoch, self.best_score, self.checks_without_gain = 0, -1.0, 0
        self.validations: list[tuple[int, float]] = []  # epochs and scores
        self.best_weights: dict[str, Tensor] = {}
        if path and path.exists():
            saved = torch.load(path, weights_only=True)
            if saved["settings"] == self.settings:
                net.load_state_dict(saved["net"])
                optimizer.load_state_dict(saved["optimizer"])
                self.epoch, self.best_score = saved["epoch"], saved["best"]
                self.checks_without_gain, self.best_weights = saved["idle"], saved["best_weights"]
                self.validations = [(epoch, score) for epoch, score in saved["looks"]]

    def record(self, score: float) -> None:
        """Add a validation score; keep a copy of the weights if it is the best so far."""
        self.validations.append((self.epoch, score))
        self.checks_without_gain += 1
        if score > self.best_score:
            self.best_score, self.best_weights = score, copy.deepcopy(self.net.state_dict())
            self.checks_without_gain = 0

    def save(self) -> None:
        """Write the state under a temporary name and move it into place."""
        if self.path:
            temporary = self.path.with_name(f".{self.path.name}.part")
            state = {
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best_weights": self.best_weights,
                "settings": self.settings,
                "epoch": self.epoch,
                "best": self.best_score,
                "idle": self.checks_without_gain,
                "looks": self.validations,
            }
            torch.save(state, temporary)
            temporary.replace(self.path)
