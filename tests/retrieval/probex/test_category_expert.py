"""Category experts: calibration, checkpoints, vectors, and which models they are chosen for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import CheckpointError, NoExpert
from loradex.retrieval.probex.category_expert import CategoryExpert, PlattScaling
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.training.fit import fit
from tests.tiny_classifiers import (
    CONFIG,
    LAYERS,
    NAMES,
    fine_tune,
    fit_expert,
    load_classifiers,
    make_ancestor,
    write_classifiers,
)

SPACE = Space("local-dir:clip", ("{}",), torch.zeros(8), torch.zeros(8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classifiers in Model-J's layout."""
    write_classifiers(tmp_path)
    return tmp_path


def test_scaling_and_offsets_are_recovered() -> None:
    """Members are drawn from log-odds with a known scale and a known offset for each category."""
    torch.manual_seed(0)
    log_odds = torch.randn(4000, 3) * 2
    members = torch.rand(4000, 3) < torch.sigmoid(log_odds + torch.tensor([-1.0, 0.0, 2.0]))
    scaling = PlattScaling.fit(log_odds * 0.01, members)
    assert scaling.scale == pytest.approx(100, rel=0.1)
    torch.testing.assert_close(scaling.offsets, torch.tensor([-1.0, 0.0, 2.0]), atol=0.15, rtol=0)


def test_an_expert_survives_its_file(folder: Path) -> None:
    dataset = load_classifiers(folder)
    expert = fit_expert(dataset, F.normalize(torch.randn(6, 8), dim=-1), SPACE.name)
    expert.save(folder / "expert.safetensors")
    again = CategoryExpert.load(folder / "expert.safetensors")
    assert (again.tree, again.family, again.space, again.shapes, again.categories, again.base) == (
        "mini-x",
        "mini",
        SPACE.name,
        LAYERS,
        NAMES,
        "base.safetensors",
    )
    models = dataset.take(dataset.rows("test"))
    torch.testing.assert_close(again.probabilities(models), expert.probabilities(models), atol=0.02, rtol=0)
    raw = (folder / "expert.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CheckpointError):
        CategoryExpert.load(folder / "cut.safetensors")


def test_the_allowed_distance_is_stored_as_reach(folder: Path) -> None:
    expert = replace(fit_expert(load_classifiers(folder), torch.eye(8)[:6], SPACE.name), max_distance=0.75)
    expert.save(folder / "expert.safetensors")
    assert CategoryExpert.load(folder / "expert.safetensors").max_distance == 0.75
    assert b'\\"reach\\": 0.75' in (folder / "expert.safetensors").read_bytes()


def test_a_model_is_near_the_names_of_its_categories(folder: Path) -> None:
    dataset = load_classifiers(folder)
    texts = torch.linalg.qr(torch.randn(8, 8))[0][:6]
    test = dataset.rows("test")
    vectors = fit_expert(dataset, texts, SPACE.name).encode_factors(dataset.take(test))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(30))
    cosines = vectors @ texts.mT
    own, others = cosines[dataset.members[test]], cosines[~dataset.members[test]]
    assert float((own[:, None] > others[None]).float().mean()) > 0.95


def test_full_models_go_to_the_expert_of_the_nearest_ancestor(folder: Path) -> None:
    """Two trees have the same layers, by name and shape: the weights decide; a stranger is refused."""
    dataset = load_classifiers(folder)
    other = make_ancestor(2)
    save_file(other, folder / "other.safetensors")
    SPACE.save(folder / "space.safetensors")
    (folder / "categories").mkdir()
    for tree, base in (("mini-x", "base.safetensors"), ("mini-y", "other.safetensors")):
        expert = replace(fit_expert(dataset, torch.eye(8)[:6], SPACE.name, base), tree=tree)
        expert.save(folder / "categories" / f"{tree}.safetensors")
    encoder = Encoder.load(folder)
    assert encoder.experts == {} and encoder.categories.keys() == {"mini-x", "mini-y"}
    members = torch.tensor([True, False, True, False, False, True])
    for tree, weights in (("mini-x", make_ancestor(1)), ("mini-y", other)):
        save_file(fine_tune(weights, members, 5), folder / "model.safetensors")
        model = encoder.router.open(folder / "model.safetensors")
        chosen, layers = encoder.router.route(model)
        assert isinstance(chosen, CategoryExpert) and chosen.tree == tree and layers.keys() == LAYERS.keys()
        assert ((chosen.probabilities(layers)[0] > 0.5) == members).all()
        assert float(encoder.encode_file(model).norm()) == pytest.approx(1, abs=1e-5)
    save_file(make_ancestor(3), folder / "stranger.safetensors")
    with pytest.raises(NoExpert, match="another base model"):
        encoder.router.route(encoder.router.open(folder / "stranger.safetensors"))


def test_trees_whose_experts_read_different_layers_are_compared_by_shared_layers(folder: Path) -> None:
    """A layer that only one expert reads, and that happens to be near its base, decides nothing."""
    dataset, other = load_classifiers(folder), make_ancestor(2)
    save_file(other, folder / "other.safetensors")
    SPACE.save(folder / "space.safetensors")
    for tree, layer, base in zip(("mini-x", "mini-y"), LAYERS, ("base.safetensors", "other.safetensors"), strict=True):
        part = replace(dataset, models=dataset.take(torch.arange(180), [layer]))
        fitted = fit(part, part.rows("train"), CONFIG.with_settings(layers=(layer,)))
        rows = part.validation_rows
        scaling = PlattScaling.fit(fitted.scores(part.take(rows)), part.members[rows])
        shapes = {layer: LAYERS[layer]}
        expert = CategoryExpert(tree, "mini", SPACE.name, shapes, fitted.model, NAMES, torch.eye(8)[:6], scaling, base)
        expert.save(folder / "categories" / f"{tree}.safetensors")
    weights = fine_tune(make_ancestor(1), torch.tensor([True] * 6), 5)
    convolution = "resnet.stages.0.convolution.weight"
    half_way = 0.5 * (make_ancestor(1)[convolution] - other[convolution])
    weights[convolution] = other[convolution] + half_way
    weights["vit.layers.0.mlp.fc1.weight"] = make_ancestor(1)["vit.layers.0.mlp.fc1.weight"] * 1.3
    save_file(weights, folder / "model.safetensors")
    router = Encoder.load(folder).router
    assert router.route(router.open(folder / "model.safetensors"))[0].tree == "mini-x"
