"""Categories of whole models: what headers name, what experts learn of weights, and where such models lie beside words."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import CheckpointError, NoExpert
from loradex.retrieval.lora import WholeModel
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.category_expert import CategoryExpert, Odds
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.training.category_dataset import CHOSEN, CategoryStudy, chosen_categories
from loradex.retrieval.training.fit import fit
from tests.whole_models import CONFIG, LAYERS, NAMES, ancestor, expert_of, moved, study_of, write_models

SPACE = Space("local-dir:clip", ("{}",), torch.zeros(8), torch.zeros(8))


@pytest.fixture
def zoo(tmp_path: Path) -> tuple[Path, Tensor]:
    """A folder in Model-J's layout, and what is true of its models."""
    return tmp_path, write_models(tmp_path)


@pytest.mark.parametrize(
    "said", ['["cat", "sea lion"]', "['cat', 'sea lion']", "[\"cat\", 'sea lion',]", '["cat"\n,"sea lion"]']
)
def test_headers_name_categories_in_two_ways(said: str) -> None:
    assert chosen_categories({CHOSEN: said}) == ("cat", "sea lion")


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        "cat",
        "{'cat': 1}",
        "['cat', 1]",
        "[['cat']]",
        "[None]",
        "['']",
        "['cat', ' ']",
        "['a\\nb']",
        "['" + "x" * 201 + "']",
        "__import__('os').system('touch /tmp/hacked')",
        "['cat' + open('/etc/passwd').read()]",
        "[x for x in 'abc']",
        "[" * 100_000,
        "(" * 5000 + ")" * 5000,
        "['" + "x" * 2**20 + "']",
        "['\0']\0",
        "\ud800",
        "1" * 10_000,
        "[1e999]",
    ],
)
def test_nothing_in_a_header_is_evaluated(said: str) -> None:
    assert chosen_categories({CHOSEN: said}) is None
    assert chosen_categories({}) is None


def test_a_closed_form_tells_categories_of_unseen_models(zoo: tuple[Path, Tensor]) -> None:
    """Linear layers and convolutions, by the difference to the ancestor; with shuffled truth it is at chance."""
    folder, members = zoo
    study = study_of(folder)
    assert study.names == NAMES and torch.equal(study.members, members)
    test = study.rows("test")
    fitted = fit(study, study.rows("train"), CONFIG)
    assert study.merit(fitted.scores(study.take(test)), test) > 0.9
    shuffled = CategoryStudy(
        study.models,
        study.members[torch.randperm(180, generator=torch.Generator().manual_seed(0))],
        study.split,
        study.names,
    )
    fitted = fit(shuffled, study.rows("train"), CONFIG)
    assert 0.35 < shuffled.merit(fitted.scores(study.take(test)), test) < 0.65


def test_odds_are_worth_what_they_say() -> None:
    """Log-odds that were scaled and shifted, each category by its own offset, are found again."""
    torch.manual_seed(0)
    true = torch.randn(4000, 3) * 2
    members = torch.rand(4000, 3) < torch.sigmoid(true + torch.tensor([-1.0, 0.0, 2.0]))
    odds = Odds.fit(true * 0.01, members)
    assert odds.scale == pytest.approx(100, rel=0.1)
    torch.testing.assert_close(odds.offsets, torch.tensor([-1.0, 0.0, 2.0]), atol=0.15, rtol=0)


def test_an_expert_survives_its_file(zoo: tuple[Path, Tensor], tmp_path: Path) -> None:
    study = study_of(zoo[0])
    expert = expert_of(study, F.normalize(torch.randn(6, 8), dim=-1), SPACE.name)
    expert.save(tmp_path / "expert.safetensors")
    again = CategoryExpert.load(tmp_path / "expert.safetensors")
    assert (again.tree, again.family, again.space, again.shapes, again.categories, again.base) == (
        "mini-x",
        "mini",
        SPACE.name,
        LAYERS,
        NAMES,
        "base.safetensors",
    )
    models = study.take(study.rows("test"))
    torch.testing.assert_close(again.probabilities(models), expert.probabilities(models), atol=0.02, rtol=0)
    raw = (tmp_path / "expert.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CheckpointError):
        CategoryExpert.load(tmp_path / "cut.safetensors")


def test_a_model_lies_near_the_words_for_its_categories(zoo: tuple[Path, Tensor]) -> None:
    study = study_of(zoo[0])
    texts = torch.linalg.qr(torch.randn(8, 8))[0][:6]
    test = study.rows("test")
    vectors = expert_of(study, texts, SPACE.name).encode_factors(study.take(test))
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(30))
    near = vectors @ texts.mT
    own, others = near[study.members[test]], near[~study.members[test]]
    assert float((own[:, None] > others[None]).float().mean()) > 0.95


def test_whole_models_go_to_the_ancestor_that_they_lie_near(zoo: tuple[Path, Tensor]) -> None:
    """Two trees of one structure, names and shapes alike: the weights decide; a stranger is refused."""
    folder, _ = zoo
    study = study_of(folder)
    other = ancestor(2)
    save_file(other, folder / "other.safetensors")
    SPACE.save(folder / "space.safetensors")
    (folder / "categories").mkdir()
    for tree, base in (("mini-x", "base.safetensors"), ("mini-y", "other.safetensors")):
        expert = expert_of(study, torch.eye(8)[:6], SPACE.name, base)
        CategoryExpert(
            tree,
            *(getattr(expert, name) for name in ("family", "space", "shapes", "model", "categories", "texts", "odds")),
            base,
        ).save(folder / "categories" / f"{tree}.safetensors")
    encoder = Encoder.load(folder)
    assert encoder.experts == {} and encoder.categories.keys() == {"mini-x", "mini-y"}
    own = torch.tensor([True, False, True, False, False, True])
    for tree, base in (("mini-x", ancestor(1)), ("mini-y", other)):
        save_file(moved(base, own, 5), folder / "model.safetensors")
        model = encoder.router.open(folder / "model.safetensors")
        expert, layers = encoder.router.route(model)
        assert isinstance(expert, CategoryExpert) and expert.tree == tree and layers.keys() == LAYERS.keys()
        assert ((expert.probabilities(layers)[0] > 0.5) == own).all()
        assert float(encoder.encode_file(model).norm()) == pytest.approx(1, abs=1e-5)
    save_file(ancestor(3), folder / "stranger.safetensors")
    with pytest.raises(NoExpert, match="another base model"):
        encoder.router.route(encoder.router.open(folder / "stranger.safetensors"))


def test_trees_that_read_other_layers_are_compared_by_those_of_both(zoo: tuple[Path, Tensor]) -> None:
    """A layer that one expert alone reads, and that lies near its base by chance, decides nothing."""
    folder, _ = zoo
    study, other = study_of(folder), ancestor(2)
    save_file(other, folder / "other.safetensors")
    SPACE.save(folder / "space.safetensors")
    for tree, layer, base in (("mini-x", 0, "base.safetensors"), ("mini-y", 1, "other.safetensors")):
        part = replace(study, models=study.take(torch.arange(180), [list(LAYERS)[layer]]))
        config = CONFIG.changed(layers=(list(LAYERS)[layer],))
        fitted = fit(part, part.rows("train"), config)
        odds = Odds.fit(fitted.scores(part.take(part.judged)), part.members[part.judged])
        expert = CategoryExpert(
            tree,
            "mini",
            SPACE.name,
            {list(LAYERS)[layer]: LAYERS[list(LAYERS)[layer]]},
            fitted.model,
            NAMES,
            torch.eye(8)[:6],
            odds,
            base,
        )
        expert.save(folder / "categories" / f"{tree}.safetensors")
    mixed = moved(ancestor(1), torch.tensor([True] * 6), 5)
    convolution = "resnet.stages.0.convolution.weight"
    mixed[convolution] = other[convolution] + 0.5 * (
        ancestor(1)[convolution] - other[convolution]
    )  # half way to the other tree
    mixed["vit.layers.0.mlp.fc1.weight"] = ancestor(1)["vit.layers.0.mlp.fc1.weight"] * 1.3
    save_file(mixed, folder / "model.safetensors")
    router = Encoder.load(folder).router
    assert router.route(router.open(folder / "model.safetensors"))[0].tree == "mini-x"


def test_layers_in_factors_are_the_difference(zoo: tuple[Path, Tensor]) -> None:
    """Against the dense difference, linear and convolution."""
    folder, _ = zoo
    path = next((folder / "test").rglob("*.safetensors"))
    model = WholeModel.open(path, folder / "base.safetensors", "mini")
    for layer, update in model.updates(list(LAYERS)).items():
        own, root = model.header.load([f"{layer}.weight"])[f"{layer}.weight"], ancestor(1)[f"{layer}.weight"]
        torch.testing.assert_close(update.up @ update.down, (own - root).flatten(1), atol=1e-5, rtol=0)
    assert isinstance(study_of(folder).models["vit.layers.0.mlp.fc1"], Factors)
