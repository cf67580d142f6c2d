"""Training of probes: it learns, stops early, and a killed run resumes to the same end."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import CategoryObjective, ContrastiveObjective, ProbeTraining, contrastive_loss
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, ProbeNet, View
from loradex.retrieval.probex.train import train_probes

OUT, IN, DIM, CLASSES = 20, 12, 6, 8
CONFIG = ProbeConfig(("one", "two"), ALL_VIEWS, 8, 8, DIM, standardise=True, text_projection=False, layer_dropout=0.3)
TRAINING = ProbeTraining(epochs=8, batch=16, lr=3e-3, temperature=0.1, check_every=2)


def some_models(seed: int = 0) -> tuple[dict[str, Factors], Tensor, Tensor]:
    """Models of eight concepts, each with its own output direction."""
    torch.manual_seed(seed)
    concepts, directions = torch.arange(CLASSES).repeat(6), torch.randn(CLASSES, OUT)
    up = directions[concepts][:, :, None] + torch.randn(len(concepts), OUT, 2) / 3
    models = {name: Factors(torch.randn(len(concepts), 2, IN).half(), up.half()) for name in ("one", "two")}
    return models, concepts, F.normalize(torch.randn(CLASSES, 2, DIM), dim=-1)


def accuracy(net: ProbeNet, models: dict[str, Factors], concepts: Tensor, anchors: Tensor) -> float:
    widened = {layer: Factors(factors.down.float(), factors.up.float()) for layer, factors in models.items()}
    return float(((net.encode(widened) @ anchors.mean(1).T).argmax(1) == concepts).float().mean())


def test_probes_learn_concepts() -> None:
    models, concepts, anchors = some_models()
    net = train_probes(models, ContrastiveObjective(concepts, anchors), CONFIG, replace(TRAINING, epochs=40))
    assert accuracy(net, models, concepts, anchors) > 0.9


@pytest.mark.parametrize("killed_at", [2, 6])
def test_a_killed_run_resumes_to_the_same_end(tmp_path: Path, killed_at: int) -> None:
    models, concepts, anchors = some_models()

    def kill(epoch: int, score: float) -> None:
        if epoch == killed_at + 2:
            raise KeyboardInterrupt

    scores: list[float] = []

    def validate(net: ProbeNet) -> float:
        scores.append(accuracy(net, models, concepts, anchors))
        return scores[-1]

    progress, resumed_progress = [], []
    uninterrupted = train_probes(
        models,
        ContrastiveObjective(concepts, anchors),
        CONFIG,
        TRAINING,
        validate,
        lambda *update: progress.append(update),
    )
    state = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        train_probes(models, ContrastiveObjective(concepts, anchors), CONFIG, TRAINING, validate, kill, state)
    scores.clear()
    resumed = train_probes(
        models,
        ContrastiveObjective(concepts, anchors),
        CONFIG,
        TRAINING,
        validate,
        lambda *update: resumed_progress.append(update),
        state,
    )
    # earlier validations are reported again, but not repeated
    assert resumed_progress == progress and len(scores) == len(progress) - killed_at // 2
    for name, tensor in uninterrupted.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], tensor)


def test_a_state_of_other_settings_is_ignored(tmp_path: Path) -> None:
    models, concepts, anchors = some_models()
    state = tmp_path / "state.pt"
    train_probes(models, ContrastiveObjective(concepts, anchors), CONFIG, TRAINING, state=state)
    epochs: list[int] = []
    train_probes(
        models,
        ContrastiveObjective(concepts, anchors),
        CONFIG,
        replace(TRAINING, lr=1e-3),
        lambda net: 0.0,
        lambda epoch, score: epochs.append(epoch),
        state,
    )
    assert epochs[0] == 2


def test_a_state_of_other_models_is_ignored(tmp_path: Path) -> None:
    models, concepts, anchors = some_models()
    state, validations = tmp_path / "state.pt", list[int]()
    for data in (models, {layer: Factors(factors.down * 2, factors.up) for layer, factors in models.items()}):
        validations.clear()
        train_probes(
            data,
            ContrastiveObjective(concepts, anchors),
            CONFIG,
            TRAINING,
            lambda net: float(validations.append(1) or 0),
            state=state,
        )
    assert len(validations) >= 2


def test_training_ends_when_validation_no_longer_improves_and_keeps_the_best() -> None:
    models, concepts, anchors = some_models()
    scores, epochs = iter([0.1, 0.5, 0.2, 0.2, 0.9]), []
    weights: list[Tensor] = []

    def validate(net: ProbeNet) -> float:
        weights.append(net.layers[0].encoder.weight.clone())
        return next(scores)

    net = train_probes(
        models,
        ContrastiveObjective(concepts, anchors),
        CONFIG,
        replace(TRAINING, epochs=50, check_every=1, patience=2),
        validate,
        lambda epoch, score: epochs.append(epoch),
    )
    assert epochs == [1, 2, 3, 4]
    torch.testing.assert_close(net.layers[0].encoder.weight, weights[1])


def test_the_symmetric_loss_counts_every_model_of_a_concept_as_right() -> None:
    logits, concepts = torch.tensor([[2.0, 0.0], [1.0, 0.5], [0.0, 3.0]]), torch.tensor([0, 0, 1])
    plain = F.cross_entropy(logits, concepts)
    assert contrastive_loss(logits, concepts, ProbeTraining()) == pytest.approx(float(plain))
    columns = logits.T.log_softmax(1)
    back = -torch.stack([columns[0, :2].mean(), columns[0, :2].mean(), columns[1, 2]]).mean()
    assert float(contrastive_loss(logits, concepts, ProbeTraining(symmetric=True))) == pytest.approx(
        float((plain + back) / 2)
    )


def test_probes_learn_which_categories_models_were_trained_on() -> None:
    """Each category has its own output direction, by which the categories of unseen models are predicted."""
    torch.manual_seed(0)
    members, directions = torch.rand(240, CLASSES) < 0.5, torch.randn(CLASSES, OUT)
    up = (members.float() @ directions)[:, :, None] + torch.randn(240, OUT, 2) / 3
    models = {"one": Factors(torch.ones(240, 2, IN), up)}
    config = ProbeConfig(("one",), (View.XU,), 8, 16, 32, text_projection=False, categories=CLASSES)
    train = {"one": models["one"][:200]}
    net = train_probes(train, CategoryObjective(members[:200]), config, replace(TRAINING, epochs=60))
    with torch.inference_mode():
        predicted = net.predict({"one": models["one"][200:]}) > 0
    assert predicted.shape == (40, CLASSES) and float((predicted == members[200:]).float().mean()) > 0.9
