"""Full models: their categories predicted, models indexed and searched with LoRAs, experts trained and evaluated."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from loradex.app.commands.main import app
from loradex.app.experts.category_prediction import predict_categories
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE
from loradex.app.search.service import Loradex
from loradex.index import Evidence, open_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileCorrupt, FileUnsupported, NoExpert, QueryError
from loradex.retrieval.lora.header import Header
from loradex.retrieval.training.expert_config import PUBLISHED_CATEGORIES
from loradex.retrieval.training.labelled_classifiers import CATEGORIES_KEY, find_classifiers
from tests.tiny_classifiers import NAMES, load_classifiers, make_ancestor, write_classifiers, write_encoder


@pytest.fixture(scope="module")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of classifiers, and an encoder: the miniature's, and an expert for these classifiers."""
    folder = tmp_path_factory.mktemp("whole")
    write_classifiers(folder)
    write_encoder(folder / "encoder", folder)
    return folder


@pytest.fixture(scope="module")
def encoder(models_folder: Path) -> Encoder:
    return Encoder.load(models_folder / "encoder")


def test_categories_are_predicted_with_probabilities(models_folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    """All categories, the most probable first; for a LoRA and a broken file the answer has a reason."""
    dataset, files = load_classifiers(models_folder), sorted((models_folder / "test").rglob("*.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    lora = next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))
    *answers, lora_answer, broken_answer = predict_categories(
        encoder, [str(file) for file in (*files, lora, tmp_path / "broken.safetensors")]
    )
    right = 0
    for answer, members in zip(answers, dataset.members[dataset.rows("test")], strict=True):
        assert answer.tree == "mini-x" and {name for name, _ in answer.categories} == set(NAMES)
        probabilities = [probability for _, probability in answer.categories]
        assert probabilities == sorted(probabilities, reverse=True) and all(0 <= each <= 1 for each in probabilities)
        right += {name for name, _ in answer.likely} == {
            name for name, is_member in zip(NAMES, members.tolist(), strict=True) if is_member
        }
    assert right > 20
    assert "which draws; ask `loradex label`" in str(lora_answer.reason) and "found plain text" in str(
        broken_answer.reason
    )
    assert lora_answer.document()["categories"] == []


def test_full_models_are_found_by_their_categories(models_folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    """In one search with LoRAs; the zoo stores their categories; labelling them is refused."""
    loras = sorted(MINIATURE.glob("models/mini-a/test_holdout/*"))[:5]
    answer = index_places([models_folder / "test", *loras], tmp_path / "zoo", encoder)
    assert (answer.added, answer.by_weights, answer.refused) == (35, 35, {})
    dataset = load_classifiers(models_folder)
    with open_zoo(tmp_path / "zoo", read_only=True) as zoo:
        families = {model.id: model.family for model in zoo.models()}
        labels = {
            model.path: [name for name, _ in model.facts["labels"]] for model in zoo.models() if model.family == "mini"
        }
        assert all(model.found_by is Evidence.PICTURE for model in zoo.models())
    truth = dict(
        zip(
            sorted(map(str, (models_folder / "test").rglob("*.safetensors"))),
            dataset.members[dataset.rows("test")],
            strict=True,
        )
    )
    assert (
        sum(set(labels[path]) == {NAMES[i] for i in torch.nonzero(own).flatten()} for path, own in truth.items()) > 20
    )
    loradex = Loradex(tmp_path / "zoo", models_folder / "encoder")
    for number, name in enumerate(NAMES):
        hits = [hit.model for hit in loradex.search(name, 35).hits]
        assert {model.id for model in hits} <= families.keys()
        own = [bool(truth[str(model.path)][number]) for model in hits if model.family == "mini"]
        places = torch.arange(len(own)).float()
        assert places[torch.tensor(own)].mean() < places[~torch.tensor(own)].mean()  # those that know it come first
    (refused,) = loradex.label([str(next(models_folder.rglob("test/*/*.safetensors")))])
    assert refused.refused and "ask `loradex categories`" in str(refused.reason)


def test_a_model_of_another_ancestor_is_refused(models_folder: Path, encoder: Encoder, tmp_path: Path) -> None:
    """By its weights: the names and shapes of its layers are the same."""
    save_file(make_ancestor(9), tmp_path / "stranger.safetensors")
    (answer,) = predict_categories(encoder, [str(tmp_path / "stranger.safetensors")])
    assert answer.categories == [] and "another base model" in str(answer.reason)
    with pytest.raises(NoExpert):
        encoder.router.route(encoder.router.open(tmp_path / "stranger.safetensors"))


def test_the_command(models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, or all probabilities as JSON; without an expert for full models an error in one line."""
    files = [str(file) for file in sorted((models_folder / "test").rglob("*.safetensors"))[:2]]
    plain = CliRunner().invoke(app, ["categories", files[0]])
    assert plain.exit_code != 0 and "expected LoRA factors" in plain.output
    monkeypatch.setenv("LORADEX_ENCODER", str(models_folder / "encoder"))
    done = CliRunner().invoke(app, ["categories", *files, "--json"])
    results = json.loads(done.stdout)["results"]
    assert done.exit_code == 0 and [result["file"] for result in results] == files
    assert all(len(result["categories"]) == len(NAMES) and result["tree"] == "mini-x" for result in results)
    likely = [each["category"] for each in results[0]["categories"] if each["probability"] > 0.5]
    shown = CliRunner().invoke(app, ["categories", files[0]])
    assert shown.exit_code == 0 and all(name in shown.stdout for name in likely)
    assert CliRunner().invoke(app, ["categories", files[0], str(tmp_path / "none.safetensors")]).exit_code == 3


@pytest.mark.parametrize("kind", ["loradex", "probex"])
@pytest.mark.parametrize("has_base", [True, False])
def test_an_expert_trained_on_a_folder_predicts_categories(
    models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_base: bool, kind: str
) -> None:
    """With the weights of the ancestor or without them; models of another ancestor are refused either way."""
    own, runner = tmp_path / "encoder", CliRunner()
    fast = replace(PUBLISHED_CATEGORIES, epochs=50)
    monkeypatch.setattr("loradex.retrieval.training.expert_config.PUBLISHED_CATEGORIES", fast)
    options = ["--base", str(models_folder / "base.safetensors")] if has_base else []
    done = runner.invoke(
        app, ["train", str(models_folder), "--out", str(own), "--tree", "mini-y", "--expert", kind, "--json", *options]
    )
    trained = json.loads(done.stdout)
    assert (trained["models"], trained["concepts"]) == (
        {"train": 120, "val": 30, "test": 30},
        {"categories": len(NAMES)},
    )
    assert trained["validation"]["accuracy a category"] > (0.9 if kind == "loradex" else 0.6)
    assert sorted(path.relative_to(own).as_posix() for path in own.glob("*/mini-y*")) == [
        "ancestors/mini-y.safetensors",
        "categories/mini-y.measured.json",
        "categories/mini-y.safetensors",
    ]
    assert not list(own.rglob(".*"))
    monkeypatch.setenv("LORADEX_ENCODER", str(own))
    save_file(make_ancestor(9), tmp_path / "stranger.safetensors")
    files = sorted((models_folder / "test").rglob("*.safetensors"))
    *results, stranger = json.loads(
        runner.invoke(app, ["categories", *map(str, files), str(tmp_path / "stranger.safetensors"), "--json"]).stdout
    )["results"]
    members = load_classifiers(models_folder).members[-30:]
    predicted = torch.tensor(
        [
            [dict((c["category"], c["probability"]) for c in one["categories"])[name] > 0.5 for name in NAMES]
            for one in results
        ]
    )
    assert float((predicted == members).float().mean()) > (0.9 if kind == "loradex" else 0.6)
    assert "another base model" in stranger["reason"]


def test_evaluation_is_of_test_models_alone(
    models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the categories in the headers, counted here; a model of another ancestor counts as refused."""
    monkeypatch.setenv("LORADEX_ENCODER", str(models_folder / "encoder"))
    zoo = tmp_path / "zoo"
    shutil.copytree(models_folder / "test", zoo / "test")
    shutil.copytree(models_folder / "val", zoo / "val")
    save_file(make_ancestor(9), zoo / "test" / "stranger.safetensors", {CATEGORIES_KEY: "['ant']"})
    done = CliRunner().invoke(app, ["evaluate", str(zoo), "--json"])
    document = json.loads(done.stdout)
    counts = {
        "models_test": 30,
        "models_of_other_trees": 0,
        "refused": 1,
        "categories": len(NAMES),
        "categories_unknown_to_it": 0,
    }
    assert document["split"] == counts
    answers = [
        answer
        for answer in predict_categories(
            Encoder.load(models_folder / "encoder"),
            [str(path) for path in sorted((zoo / "test").rglob("*/*.safetensors"))],
        )
    ]
    members = load_classifiers(models_folder).members[-30:]
    right = [
        [(name in {n for n, _ in a.likely}) == bool(own[i]) for i, name in enumerate(NAMES)]
        for a, own in zip(answers, members, strict=True)
    ]
    accuracy = document["metrics"]["accuracy_per_category"]
    assert (
        accuracy["value"] == pytest.approx(np.mean(right)) and accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    )
    share = float(members.float().mean())
    assert accuracy["n"] == 30 and accuracy["chance"] == pytest.approx(max(share, 1 - share))
    assert (
        document["metrics"]["category_to_model_auroc"]["value"]
        > 0.9
        > 0.3
        > document["metrics"]["calibration_error"]["value"]
    )
    assert "accuracy_per_category" in CliRunner().invoke(app, ["evaluate", str(zoo)]).stdout
    shutil.rmtree(zoo / "test")
    refused = CliRunner().invoke(app, ["evaluate", str(zoo)])
    assert refused.exit_code != 0 and "expected test models" in str(refused.exception)


def test_too_few_models_to_train_on_end_in_one_line(models_folder: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(models_folder / "test", few / "train")
    done = CliRunner().invoke(app, ["train", str(few), "--out", str(tmp_path / "encoder")])
    assert done.exit_code != 0 and "validation models with layers in common" in str(done.exception)
    save_file({"other.weight": torch.zeros(3, 3)}, tmp_path / "base.safetensors")
    done = CliRunner().invoke(
        app,
        ["train", str(models_folder), "--out", str(tmp_path / "encoder"), "--base", str(tmp_path / "base.safetensors")],
    )
    assert done.exit_code != 0 and "with 0 layers" in str(done.exception)
    assert not (tmp_path / "encoder").exists()


@pytest.fixture
def changed(models_folder: Path, tmp_path: Path) -> tuple[Path, list[Path]]:
    """A copy of the folder for tests that change its models, and its training models."""
    folder = tmp_path / "models"
    for split in ("train", "val"):
        shutil.copytree(models_folder / split, folder / split)
    return folder, sorted((folder / "train").rglob("*.safetensors"))


def rewrite(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> None:
    """Change some tensors of a file, and its metadata."""
    header = Header.read(path)
    save_file(header.load(list(header.tensors)) | tensors, path, metadata or header.metadata)


def train(folder: Path, *options: str) -> dict[str, Any]:
    """The JSON of ``loradex train``; raises its error."""
    done = CliRunner().invoke(app, ["train", str(folder), "--out", str(folder.parent / "own"), "--json", *options])
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def test_validation_accuracy_is_not_fitted_on_validation_models(changed: tuple[Path, list[Path]]) -> None:
    """With random categories it is no better than chance."""
    rng = np.random.default_rng(5)
    for path in changed[0].rglob("*.safetensors"):
        rewrite(path, {}, {CATEGORIES_KEY: json.dumps(sorted(rng.permutation(NAMES)[:3].tolist()))})
    assert abs(train(changed[0], "--tree", "mine")["validation"]["accuracy a category"] - 0.5) < 0.12


def test_heads_are_left_out_and_broken_models_are_named(changed: tuple[Path, list[Path]]) -> None:
    """A head has the same shape in all models, but each is trained from scratch, so it lies far from the base."""
    folder, models = changed
    for number, path in enumerate(folder.rglob("*.safetensors")):
        rewrite(path, {"classifier.weight": torch.randn(6, 24, generator=torch.Generator().manual_seed(number))})
    assert train(folder, "--tree", "mine")["layers"].keys() == {"vit.layers.0.mlp.fc1", "resnet.stages.0.convolution"}
    rewrite(models[5], {"vit.layers.0.mlp.fc1.weight": torch.full((24, 16), torch.nan)})
    with pytest.raises(FileCorrupt, match=models[5].parent.name):
        train(folder, "--tree", "mine")
    rewrite(models[5], {"vit.layers.0.mlp.fc1.weight": torch.full((24, 16), 1e6)})
    with pytest.raises(FileCorrupt, match="half precision"):
        train(folder, "--tree", "mine")


def test_models_without_a_common_ancestor_are_refused(changed: tuple[Path, list[Path]]) -> None:
    for number, path in enumerate(changed[0].rglob("*.safetensors")):
        rewrite(path, make_ancestor(100 + number))
    with pytest.raises(FileUnsupported, match="fine-tuned from one base model"):
        train(changed[0], "--tree", "mine")


def test_a_tree_name_must_be_free(changed: tuple[Path, list[Path]], tmp_path: Path) -> None:
    """Not that of an expert of the other kind, and a valid file name."""
    for name, message in (("mini-a", "which is"), ("../up", "leave out slashes")):
        with pytest.raises(QueryError, match=message):
            train(changed[0], "--tree", name)
    loras = tmp_path / "loras"
    loras.mkdir()
    for number, path in enumerate(sorted(MINIATURE.glob("models/mini-b/*/*/*.safetensors"))[:60]):
        shutil.copy(path, loras / f"{number}.safetensors")
    with pytest.raises(QueryError, match="which is"):
        train(loras, "--tree", "mini-vit")


def test_loras_that_name_categories_are_not_classifiers(changed: tuple[Path, list[Path]], tmp_path: Path) -> None:
    lora = next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))
    for number in range(3):
        header = Header.read(lora)
        save_file(
            header.load(list(header.tensors)),
            tmp_path / f"{number}.safetensors",
            header.metadata | {CATEGORIES_KEY: "['ant']"},
        )
    shutil.copy(changed[1][0], tmp_path / "one.safetensors")
    shutil.rmtree(changed[0])
    assert find_classifiers(tmp_path) == []
