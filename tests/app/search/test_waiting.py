"""Models that wait for an expert are counted, and every answer about them names the commands that get one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import loradex.app.search.waiting
from loradex.app.backend import Backend
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.query import Query
from loradex.app.search.service import Loradex
from loradex.app.search.waiting import Waiting, WaitingModels, count_waiting
from loradex.app.web.library_tab import render_files
from loradex.app.web.waiting import NO_WAY, ONLY_SHARED, TRAIN, render_families, render_waiting
from loradex.index import ModelMissing, open_zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import NoExpertReason
from tests.app.indexing.without_expert import SHIPPED, write_files

ADD = "loradex expert add PLACE"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("waiting") / "loras"
    folder.mkdir()
    write_files(folder)
    save_file(load_file(SHIPPED), folder / "read.safetensors")
    return folder


@pytest.fixture(scope="module")
def zoo(folder: Path) -> Iterator[Path]:
    zoo = folder.parent / "zoo"
    index_places([folder], zoo, Encoder.load(MINIATURE / "encoder"))
    yield zoo


def test_models_without_an_expert_are_counted_by_family(zoo: Path) -> None:
    with open_zoo(zoo, read_only=True) as opened:
        mini, sd1 = count_waiting(opened)
    assert (mini.family, mini.count) == ("mini-a", 2)
    assert sd1 == Waiting("sd1", 1, NoExpertReason.FAMILY)
    assert sd1.commands == [ADD, "loradex base add PATH", "loradex grow sd1"]
    with open_zoo(SHIPPED_ZOO, read_only=True) as shipped:
        assert count_waiting(shipped) == []


def test_a_base_model_that_is_named_need_not_be_added(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = Waiting("sd1", 1, NoExpertReason.FAMILY)
    monkeypatch.setenv("LORADEX_BASES", "sd1=/models/sd1")
    assert waiting.commands == [ADD, "loradex grow sd1"]
    monkeypatch.setenv("LORADEX_BASES", "nonsense")  # said by the commands that use base models
    assert waiting.commands == [ADD, "loradex base add PATH", "loradex grow sd1"]


def test_a_zoo_is_counted_again_once_it_has_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loras").mkdir()
    encoder, waiting = Encoder.load(MINIATURE / "encoder"), WaitingModels()
    for number, name in enumerate(("family", "read"), 1):
        data = (folder / f"{name}.safetensors").read_bytes()
        (tmp_path / "loras" / f"{number}.safetensors").write_bytes(data)
        index_places([tmp_path / "loras"], tmp_path / "zoo", encoder)
        with open_zoo(tmp_path / "zoo", read_only=True) as opened:
            assert [each.family for each in waiting.of(opened)] == ["sd1"]
            found = waiting.of(opened)
            assert waiting.of(opened) is found
    monkeypatch.setattr(loradex.app.search.waiting, "SLOW", -1.0)  # every count is slow
    slow = WaitingModels()
    with open_zoo(tmp_path / "zoo", read_only=True) as opened:
        found = slow.of(opened)
    (tmp_path / "loras" / "1.safetensors").unlink()
    index_places([tmp_path / "loras"], tmp_path / "zoo", encoder, prune=True)
    with open_zoo(tmp_path / "zoo", read_only=True) as opened:
        assert slow.of(opened) is found
        assert waiting.of(opened) == []


def test_a_query_with_such_a_model_says_how_to_get_an_expert(zoo: Path) -> None:
    loradex = Loradex(zoo, MINIATURE / "encoder")
    model = next(model for model in loradex.zoo.models() if model.family == "sd1")
    with pytest.raises(ModelMissing, match=f"`{ADD}`.*`loradex base add PATH`, then `loradex grow sd1`") as error:
        loradex.search(Query.from_parts(models=[model.id]))
    assert "\n" not in str(error.value)


def test_labels_of_such_files_name_the_commands(folder: Path) -> None:
    answers = {Path(each.file).stem: each for each in Loradex().label(sorted(map(str, folder.iterdir())))}
    commands = {name: answer.document()["next"] for name, answer in answers.items()}
    assert commands == {
        "family": [ADD, "loradex base add PATH", "loradex grow sd1"],
        "layers": [ADD, "loradex grow mini-a --tree NAME"],
        "stranger": [ADD, "loradex grow PATH --tree NAME"],
        "read": [],
    }
    for name, answer in answers.items():
        assert (ADD in str(answer.reason)) == bool(commands[name])
        assert all(command in str(answer.reason) for command in commands[name])  # type: ignore[attr-defined]


def test_the_page_shows_the_commands_to_copy(folder: Path, zoo: Path) -> None:
    html = render_waiting(Backend(Loradex(zoo, MINIATURE / "encoder")))
    assert "what a LoRA draws: 3 models of this zoo." in html
    assert html.count('data-copy="loradex grow sd1"') == html.count(f'data-copy="{ADD}"') == 1
    assert render_waiting(Backend(Loradex())) == ""
    answer = index_places([folder], folder.parent / "other zoo", Encoder.load(MINIATURE / "encoder"))
    shown = render_files(answer)
    assert all(f'data-copy="{command}"' in shown for command in answer.next)
    odd = [("<i>\n", "1 file", [ADD]), ("unknown", "2 files", []), ("mini-vit", "3 files", [])]
    shown = render_families(odd, "why")
    assert "grow one for &lt;i&gt;  (1 file)" in shown
    assert all(text in shown for text in (ONLY_SHARED, NO_WAY, TRAIN))
