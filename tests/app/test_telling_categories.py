"""Whole models as a person meets them: their categories told, indexed and searched beside LoRAs by the words for what they know."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from app.categories import tell_categories
from app.cli import app
from app.ingest import index_places
from app.places import MINIATURE
from app.service import Loradex
from index import FoundBy, open_zoo
from retrieval.encoder import Encoder
from retrieval.errors import NoExpert
from tests.whole_models import NAMES, study_of, write_encoder, write_models


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, and an encoder: the miniature's space, experts and words, and an expert for these models."""
    folder = tmp_path_factory.mktemp("whole")
    write_models(folder)
    write_encoder(folder / "encoder", folder)
    return folder


@pytest.fixture(scope="module")
def encoder(kept: Path) -> Encoder:
    return Encoder.load(kept / "encoder")


def test_categories_are_told_with_their_odds(kept: Path, encoder: Encoder, tmp_path: Path) -> None:
    """All of them, the likeliest first; a LoRA and a broken file are refused in a line."""
    study, files = study_of(kept), sorted((kept / "test").rglob("*.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"x")
    lora = next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))
    *told, drawn, broken = tell_categories(encoder, [str(file) for file in (*files, lora, tmp_path / "broken.safetensors")])
    right = 0
    for answer, members in zip(told, study.members[study.rows("test")], strict=True):
        assert answer.tree == "mini-x" and {name for name, _ in answer.categories} == set(NAMES)
        odds = [probability for _, probability in answer.categories]
        assert odds == sorted(odds, reverse=True) and all(0 <= each <= 1 for each in odds)
        right += {name for name, _ in answer.likely} == {name for name, there in zip(NAMES, members.tolist(), strict=True) if there}
    assert right > 20
    assert "which draws; ask `loradex label`" in str(drawn.reason) and "expected a header" in str(broken.reason)
    assert drawn.document()["categories"] == []


def test_whole_models_are_found_by_the_words_for_their_categories(kept: Path, encoder: Encoder, tmp_path: Path) -> None:
    """Beside LoRAs, in one search; what is known of them is in the zoo, and asking for what they draw is refused."""
    loras = sorted(MINIATURE.glob("models/mini-a/test_holdout/*"))[:5]
    answer = index_places([kept / "test", *loras], tmp_path / "zoo", encoder)
    assert (answer.added, answer.by_weights, answer.refused) == (35, 35, {})
    study = study_of(kept)
    with open_zoo(tmp_path / "zoo", read_only=True) as zoo:
        families = {model.id: model.family for model in zoo.models()}
        labels = {model.path: [name for name, _ in model.facts["labels"]] for model in zoo.models() if model.family == "mini"}
        assert all(model.found_by is FoundBy.WEIGHTS for model in zoo.models())
    truth = dict(zip(sorted(map(str, (kept / "test").rglob("*.safetensors"))), study.members[study.rows("test")], strict=True))
    assert sum(set(labels[path]) == {NAMES[i] for i in torch.nonzero(own).flatten()} for path, own in truth.items()) > 20
    loradex = Loradex(tmp_path / "zoo", kept / "encoder")
    for number, name in enumerate(NAMES):
        hits = [hit.model for hit in loradex.search(name, 35).hits]
        assert {model.id for model in hits} <= families.keys()
        own = [bool(truth[str(model.path)][number]) for model in hits if model.family == "mini"]
        places = torch.arange(len(own)).float()
        assert places[torch.tensor(own)].mean() < places[~torch.tensor(own)].mean()  # those that know it come first
    (refused,) = loradex.label([str(next(kept.rglob("test/*/*.safetensors")))])
    assert refused.refused and "ask `loradex categories`" in str(refused.reason)


def test_a_model_of_another_ancestor_is_refused(kept: Path, encoder: Encoder, tmp_path: Path) -> None:
    """By its weights: names and shapes agree."""
    from safetensors.torch import save_file

    from tests.whole_models import ancestor

    save_file(ancestor(9), tmp_path / "stranger.safetensors")
    (answer,) = tell_categories(encoder, [str(tmp_path / "stranger.safetensors")])
    assert answer.categories == [] and "another base model" in str(answer.reason)
    with pytest.raises(NoExpert):
        encoder.router.route(encoder.router.open(tmp_path / "stranger.safetensors"))


def test_the_command(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, or all odds as JSON; without an expert for whole models it says so in a line."""
    files = [str(file) for file in sorted((kept / "test").rglob("*.safetensors"))[:2]]
    plain = CliRunner().invoke(app, ["categories", files[0]])
    assert plain.exit_code != 0 and "expected LoRA factors" in plain.output
    monkeypatch.setenv("LORADEX_ENCODER", str(kept / "encoder"))
    done = CliRunner().invoke(app, ["categories", *files, "--json"])
    results = json.loads(done.stdout)["results"]
    assert done.exit_code == 0 and [result["file"] for result in results] == files
    assert all(len(result["categories"]) == len(NAMES) and result["tree"] == "mini-x" for result in results)
    likely = [each["category"] for each in results[0]["categories"] if each["probability"] > 0.5]
    shown = CliRunner().invoke(app, ["categories", files[0]])
    assert shown.exit_code == 0 and all(name in shown.stdout for name in likely)
    assert CliRunner().invoke(app, ["categories", files[0], str(tmp_path / "none.safetensors")]).exit_code == 3
