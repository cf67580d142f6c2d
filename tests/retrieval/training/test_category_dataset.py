"""Datasets of classifiers: what is read from their files, and what a closed form learns from them."""

from pathlib import Path

import torch
from torch import Tensor

from loradex.retrieval.lora import FullModel
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.training.category_dataset import CategoryDataset
from loradex.retrieval.training.fit import fit
from tests.tiny_classifiers import CONFIG, LAYERS, NAMES, load_classifiers, make_ancestor, write_classifiers


def test_a_closed_form_predicts_categories_of_unseen_models(tmp_path: Path) -> None:
    """From linear layers and convolutions, by the difference to the ancestor; with shuffled labels it is at chance."""
    members = write_classifiers(tmp_path)
    dataset = load_classifiers(tmp_path)
    assert dataset.names == NAMES and torch.equal(dataset.members, members)
    test = dataset.rows("test")

    def test_score(dataset: CategoryDataset) -> float:
        fitted = fit(dataset, dataset.rows("train"), CONFIG)
        return dataset.validation_score(fitted.scores(dataset.take(test)), test)

    assert test_score(dataset) > 0.9
    shuffled: Tensor = dataset.members[torch.randperm(180, generator=torch.Generator().manual_seed(0))]
    assert 0.35 < test_score(CategoryDataset(dataset.models, shuffled, dataset.split, dataset.names)) < 0.65


def test_updates_are_the_dense_differences_to_the_ancestor(tmp_path: Path) -> None:
    """Of a linear layer and of a convolution."""
    write_classifiers(tmp_path)
    path = next((tmp_path / "test").rglob("*.safetensors"))
    model = FullModel.open(path, tmp_path / "base.safetensors", "mini")
    for layer, update in model.updates(list(LAYERS)).items():
        weight = model.header.load([f"{layer}.weight"])[f"{layer}.weight"]
        difference = weight - make_ancestor(1)[f"{layer}.weight"]
        torch.testing.assert_close(update.up @ update.down, difference.flatten(1), atol=1e-5, rtol=0)
    assert isinstance(load_classifiers(tmp_path).models["vit.layers.0.mlp.fc1"], Factors)
