"""Why no expert reads a file: from the router to the answer and the zoo, for local and for remote files."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loradex.app.commands.main import app
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE
from loradex.index import Evidence, Zoo
from loradex.retrieval.encoder import Encoder
from tests.app.indexing.without_expert import ADVICE, REASONS, write_files


@pytest.mark.parametrize("address", ["", "file://"])
def test_the_reason_is_told_and_stored(tmp_path: Path, address: str) -> None:
    folder, zoo, encoder = tmp_path / "loras", tmp_path / "zoo", Encoder.load(MINIATURE / "encoder")
    folder.mkdir()
    write_files(folder)
    answer = index_places([f"{address}{folder}"], zoo, encoder)
    assert (answer.by_weights, answer.by_metadata, answer.refused) == (0, 3, {})
    assert {Path(path).name: str(reason) for path, reason in answer.no_expert.items()} == REASONS
    assert answer.advice == ADVICE
    with Zoo.open(zoo, read_only=True) as opened:
        models = {Path(str(model.path)).name: model for model in opened.models()}
    assert {name: model.facts["no_expert"] for name, model in models.items()} == REASONS
    assert all(model.found_by is Evidence.METADATA for model in models.values())
    again = index_places([f"{address}{folder}"], zoo, encoder)
    assert (again.unchanged, again.by_metadata, again.advice) == (3, 0, None)  # it advises on what it read


def test_the_reason_goes_when_an_expert_reads_the_file(tmp_path: Path) -> None:
    folder, zoo, encoder = tmp_path / "loras", tmp_path / "zoo", Encoder.load(MINIATURE / "encoder")
    folder.mkdir()
    write_files(folder)
    index_places([folder], zoo, encoder)
    path = folder / "layers.safetensors"
    few = tmp_path / "encoder"
    few.mkdir()
    for name in ("space.safetensors", "labels.safetensors", "clip"):
        (few / name).symlink_to(MINIATURE / "encoder" / name)
    expert = encoder.experts["mini-a"]
    for layer in expert.layers:  # an expert that needs no more than the file has
        expert.model.alignment[layer] *= layer in encoder.router.open(path).shapes  # type: ignore[union-attr]
    (few / "experts").mkdir()
    expert.save(few / "experts" / "mini-a.safetensors")
    answer = index_places([path], zoo, Encoder.load(few))
    assert (answer.by_weights, answer.updated, answer.advice) == (1, 1, None)
    with Zoo.open(zoo, read_only=True) as opened:
        (model,) = (model for model in opened.models() if model.path == str(path))
    assert model.found_by is Evidence.PICTURE
    assert "no_expert" not in model.facts


def test_the_command_says_which_case_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADEX_ENCODER", str(MINIATURE / "encoder"))
    folder = tmp_path / "loras"
    folder.mkdir()
    write_files(folder)
    done = CliRunner().invoke(app, ["index", str(folder), "--zoo", str(tmp_path / "zoo"), "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["advice"] == ADVICE
    assert {Path(each["file"]).name: each["reason"] for each in document["understood"]} == REASONS
    lacking = CliRunner().invoke(app, ["label", str(folder / "layers.safetensors")])
    assert "expected layer " in lacking.output  # as the advice promises
