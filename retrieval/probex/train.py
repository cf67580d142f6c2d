"""Training probes to an objective, by Adam, with an early stop, and from where a killed run was."""

import copy
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors, widen
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
    """Train on ``models`` to an objective.

    The best epoch by ``validate``, or without it the last, comes back. Progress is kept in the file ``state``, from which a killed run goes on to the same end.
    """
    torch.manual_seed(training.seed)
    shapes = {layer: (models[layer].up.shape[1], models[layer].down.shape[2]) for layer in config.layers}
    net = ProbeNet(shapes, objective.width, config).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True)
    settings = {
        "config": asdict(config),
        "training": asdict(training),
        "models": digest(models),
        "early stop": validate is not None,
    }
    run = Run(net, optimizer, state, settings)
    for look in run.looks:
        progress(*look)
    while run.epoch < training.epochs and run.idle < training.patience:
        torch.manual_seed(hash((training.seed, run.epoch)))  # so that a run that was killed goes on as it would have
        net.train()
        for rows in torch.randperm(len(objective)).split(training.batch):
            batch = {layer: widen(models[layer][rows]).to(device) for layer in config.layers}
            loss = objective.loss(net, batch, rows, training, device)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        run.epoch += 1
        if validate and (run.epoch % training.check_every == 0 or run.epoch == training.epochs):
            net.eval()
            with torch.inference_mode():
                score = validate(net)
            run.note(score)
            progress(run.epoch, score)
        if run.epoch % training.check_every == 0:
            run.save()
    if run.best_weights:
        net.load_state_dict(run.best_weights)
    return net.eval().cpu()


def digest(models: Mapping[str, Factors]) -> str:
    """A name made of a model's worth of training data from each part of it, by which a run knows that it goes on with what it began with."""
    found = hashlib.sha256()
    for layer, factors in sorted(models.items()):
        found.update(f"{layer} {tuple(factors.up.shape)} {tuple(factors.down.shape)}\n".encode())
        for row in (0, len(factors) // 2, len(factors) - 1):
            found.update(factors.up[row].double().numpy().tobytes() + factors.down[row].double().numpy().tobytes())
    return found.hexdigest()


class Run:
    """What a run needs to go on after a kill: weights, optimiser, epoch, and the best weights so far."""

    def __init__(
        self, net: ProbeNet, optimizer: torch.optim.Optimizer, path: Path | None, settings: dict[str, Any]
    ) -> None:
        """Take up the state in ``path`` if it is of the same settings."""
        self.net, self.optimizer, self.path, self.settings = net, optimizer, path, repr(settings)
        self.epoch, self.best, self.idle = 0, -1.0, 0
        self.looks: list[tuple[int, float]] = []  # epochs, and what was seen of validation models
        self.best_weights: dict[str, Tensor] = {}
        if path and path.exists():
            kept = torch.load(path, weights_only=True)
            if kept["settings"] == self.settings:
                net.load_state_dict(kept["net"])
                optimizer.load_state_dict(kept["optimizer"])
                self.epoch, self.best, self.idle, self.best_weights = (
                    kept["epoch"],
                    kept["best"],
                    kept["idle"],
                    kept["best_weights"],
                )
                self.looks = [(epoch, score) for epoch, score in kept["looks"]]

    def note(self, score: float) -> None:
        """Remember the weights if the score is the best yet."""
        self.looks.append((self.epoch, score))
        self.idle += 1
        if score > self.best:
            self.best, self.best_weights, self.idle = score, copy.deepcopy(self.net.state_dict()), 0

    def save(self) -> None:
        """Write the state beside its old version and put it in its place."""
        if self.path:
            kept = {
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "best_weights": self.best_weights,
            }
            temporary = self.path.with_name(f".{self.path.name}.part")
            torch.save(
                kept
                | {
                    "settings": self.settings,
                    "epoch": self.epoch,
                    "best": self.best,
                    "idle": self.idle,
                    "looks": self.looks,
                },
                temporary,
            )
            temporary.replace(self.path)
