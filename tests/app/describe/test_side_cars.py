"""Side-cars: what people wrote stays to the byte, Loradex updates its values, ComfyUI-Lora-Manager reads it all."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from loradex.app.describe.inspection import inspect_lora
from loradex.app.describe.predictions import summary_line
from loradex.app.describe.side_cars import new_side_car, plan_side_car
from loradex.app.describe.text_edit import PlannedEdit, apply_edit
from loradex.app.indexing.file_reader import facts_document
from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import MAX_SIDE_CAR_BYTES, Facts, read_facts
from tests.app.describe.samples import DOG, PIZZA, SPACE, UNSURE, label_answer, snapshot, write_lora

KOHYA = {"ss_network_module": "networks.lora", "modelspec__trigger_phrase": "mycat, fluffy", "ss_output_name": "cat_v2"}
PERSONS_SIDE_CAR = '{"favorite":true ,\n\t"tags" : ["mine"],"notes":"sch\\u00f6n 🍕","usage_tips":"{\\"strength\\": 0.80}","x":[1.50, 1e5],"base_model":"Pony"}'


@dataclass
class Managed:
    """The fields that ComfyUI-Lora-Manager's class needs in a side-car, written from its description."""

    file_name: str
    model_name: str
    file_path: str
    size: int
    modified: float
    sha256: str
    base_model: str
    preview_url: str
    notes: str = ""
    civitai: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    favorite: bool = False
    usage_tips: str = "{}"

    @classmethod
    def load(cls, path: Path) -> tuple["Managed", dict[str, Any]]:
        """Load a side-car; returns it, and the keys that the manager does not know, without private ones."""
        document = json.loads(path.read_text("utf-8"))
        known = {each.name for each in fields(cls)}
        unknown = {key: value for key, value in document.items() if key not in known and not key.startswith("_")}
        return cls(**{key: value for key, value in document.items() if key in known}), unknown


def describe(path: Path, answer: LabelAnswer = PIZZA) -> PlannedEdit:
    edit = plan_side_car(LoraFile.open(path), answer, SPACE)
    if edit.changes:
        apply_edit(edit, path)
    return edit


def side_car(path: Path) -> Any:
    return json.loads(path.with_name(path.stem + ".metadata.json").read_text("utf-8"))


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return write_lora(tmp_path / "cat.v2.safetensors", **KOHYA).path


def test_a_new_side_car(cat: Path) -> None:
    (cat.parent / "cat.v2.preview.png").write_bytes(b"")
    describe(cat)
    lora, document = LoraFile.open(cat), side_car(cat)
    notes = "Loradex read from the weights: pizza 72%, food 20%. Family sd1, format kohya, rank 2, trained with kohya."
    entries = document.pop("loradex")
    assert document == {
        "file_name": "cat.v2",
        "model_name": "cat_v2",
        "file_path": str(cat),
        "size": cat.stat().st_size,
        "modified": pytest.approx(cat.stat().st_mtime),
        "sha256": lora.sha256,
        "base_model": "SD 1.5",
        "preview_url": str(cat.parent / "cat.v2.preview.png"),
        "notes": notes,
        "tags": ["pizza"],
        "civitai": {"trainedWords": ["mycat", "fluffy"]},
    }
    labels = [
        {"label": "pizza", "probability": 0.721},
        {"label": "food", "probability": 0.2},
        {"label": "dog", "probability": 0.01},
    ]
    assert {key: value for key, value in entries.items() if key != "wrote"} == {
        "space": SPACE,
        "family": "sd1",
        "labels": labels,
    }
    assert entries["wrote"]["tags"] == ["pizza"] and entries["wrote"]["civitai.trainedWords"] == ["mycat", "fluffy"]


def test_the_manager_loads_and_saves_it(cat: Path) -> None:
    describe(cat)
    managed, unknown = Managed.load(cat.with_name("cat.v2.metadata.json"))
    assert (managed.tags, managed.civitai) == (["pizza"], {"trainedWords": ["mycat", "fluffy"]})
    saved = {**asdict(managed), **unknown}
    cat.with_name("cat.v2.metadata.json").write_text(json.dumps(saved, indent=2, ensure_ascii=False), "utf-8")
    assert describe(cat).changes == []
    assert describe(cat, DOG).changes != []
    assert side_car(cat)["tags"] == ["dog"] and side_car(cat)["favorite"] is False


def test_a_second_run_changes_nothing(cat: Path) -> None:
    assert describe(cat).changes
    before = snapshot(cat.parent)
    assert describe(cat).changes == []
    assert snapshot(cat.parent) == before


def test_planning_writes_nothing(cat: Path) -> None:
    before = snapshot(cat.parent)
    edit = plan_side_car(LoraFile.open(cat), PIZZA, SPACE)
    assert [change.field for change in edit.changes][-3:] == ["tags", "civitai.trainedWords", "loradex"]
    assert all(change.old is None for change in edit.changes)
    assert snapshot(cat.parent) == before


@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_what_a_person_wrote_stays_to_the_byte(cat: Path, bom: str) -> None:
    target = cat.with_name("cat.v2.metadata.json")
    target.write_text(bom + PERSONS_SIDE_CAR, "utf-8")
    target.chmod(0o640)
    describe(cat)
    after = target.read_text("utf-8")
    assert after.startswith(bom + PERSONS_SIDE_CAR[:-1]) and target.stat().st_mode & 0o777 == 0o640
    found = json.loads(after.removeprefix(bom))
    assert (found["tags"], found["base_model"], found["sha256"]) == (["mine"], "Pony", LoraFile.open(cat).sha256)
    assert not {"tags", "notes", "base_model"} & found["loradex"]["wrote"].keys()
    assert describe(cat).changes == []


def test_placeholders_and_empty_fields_are_filled_in_place(cat: Path) -> None:
    existing = {
        "tags": [],
        "notes": "",
        "base_model": "Unknown",
        "civitai": {"id": 7, "trainedWords": []},
        "sha256": "AB" * 32,
        "model_name": None,
    }
    cat.with_name("cat.v2.metadata.json").write_text(json.dumps(existing))
    describe(cat)
    found = side_car(cat)
    assert list(found)[: len(existing)] == list(existing)
    assert (found["tags"], found["base_model"], found["model_name"], found["sha256"]) == (
        ["pizza"],
        "SD 1.5",
        "cat_v2",
        "AB" * 32,
    )
    assert found["civitai"] == {"id": 7, "trainedWords": ["mycat", "fluffy"]}


def test_loradex_updates_and_takes_back_its_values(cat: Path) -> None:
    describe(cat)
    changes = {change.field: (change.old, change.new) for change in describe(cat, DOG).changes}
    assert changes["tags"] == (["pizza"], ["dog"]) and set(changes) == {"tags", "notes", "loradex"}
    changes = {change.field: (change.old, change.new) for change in describe(cat, UNSURE).changes}
    assert changes["tags"] == (["dog"], None)
    found = side_car(cat)
    assert (
        found["tags"] == []
        and "unknown" in found["notes"]
        and found["loradex"]["label"] == "unknown"
        and "labels" not in found["loradex"]
    )
    assert describe(cat, UNSURE).changes == []
    describe(cat)
    assert side_car(cat)["tags"] == ["pizza"]


@pytest.mark.parametrize("edited", [["pizza", "mine"], []])
def test_what_a_person_changed_or_emptied_is_left_alone(cat: Path, edited: list[str]) -> None:
    describe(cat)
    found = side_car(cat)
    found["tags"] = edited
    cat.with_name("cat.v2.metadata.json").write_text(json.dumps(found))
    for answer in (DOG, UNSURE, PIZZA):
        describe(cat, answer)
        assert side_car(cat)["tags"] == edited
    assert LoraFile.open(cat).facts.tags == tuple(tag for tag in edited if tag == "mine")


def test_a_changed_file_is_described_again(cat: Path) -> None:
    describe(cat)
    write_lora(cat, ss_output_name="other")
    changes = {change.field for change in describe(cat).changes}
    assert {"size", "sha256", "model_name", "civitai.trainedWords"} <= changes
    assert side_car(cat)["sha256"] == LoraFile.open(cat).sha256 and side_car(cat)["civitai"] == {"trainedWords": []}


def test_an_unchanged_file_is_not_hashed_again(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe(cat)
    monkeypatch.setattr(LoraFile, "sha256", property(lambda lora: pytest.fail("it was hashed")))
    assert describe(cat).changes == []


def test_what_loradex_wrote_is_not_read_as_a_persons(cat: Path) -> None:
    without = read_facts(cat, LoraFile.open(cat).header.metadata)
    describe(cat)
    assert LoraFile.open(cat).facts == without
    assert inspect_lora(LoraFile.open(cat), hashes=False)["tags"] == []
    assert not {"tags", "notes"} & facts_document("kohya", [2], 1, LoraFile.open(cat).facts).keys()  # what a zoo stores
    assert read_facts(cat, {}) == Facts()
    found = side_car(cat)
    found |= {"tags": ["pizza", "mine"], "notes": "mine as well"}
    cat.with_name("cat.v2.metadata.json").write_text(json.dumps(found))
    assert read_facts(cat, {}) == Facts(tags=("mine",), notes="mine as well", sources=("cat.v2.metadata.json",))


def test_civitai_info_is_left_to_the_manager(cat: Path) -> None:
    cat.with_name("cat.v2.civitai.info").write_text(json.dumps({"baseModel": "Illustrious", "trainedWords": ["x"]}))
    describe(cat)
    assert "civitai" not in side_car(cat) and side_car(cat)["base_model"] == "Illustrious"
    assert describe(cat).changes == []


@pytest.mark.parametrize("name", ["猫 🐈", "a'b\"c", "مرحبا", "-rf", "x" * 230])
def test_odd_names(tmp_path: Path, name: str) -> None:
    path = write_lora(tmp_path / f"{name}.safetensors").path
    describe(path)
    assert side_car(path)["file_name"] == name
    assert describe(path).changes == []


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode elsewhere")
def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "a.safetensors").path.rename(tmp_path / "a\udcff.safetensors")
    describe(path)
    assert side_car(path)["file_name"] == "a?"
    assert describe(path).changes == []


HOSTILE = {
    "empty": b"",
    "cut short": b'{"a": 1',
    "no object": b"[1]",
    "twice": b'{"tags": ["x"], "tags": []}',
    "NUL": b'{"a": "\x00"}',
    "deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no UTF-8": b'{"a": "\xff"}',
    "long number": b'{"a": ' + b"9" * 10_000 + b"}",
    "huge": b'{"a": "' + b"x" * MAX_SIDE_CAR_BYTES + b'"}',
    "own key with something else": b'{"loradex": "mine"}',
    "own key without a record": b'{"loradex": {"labels": []}}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_side_car_is_refused_and_left_alone(cat: Path, content: bytes) -> None:
    cat.with_name("cat.v2.metadata.json").write_bytes(content)
    before = snapshot(cat.parent)
    with pytest.raises(DescriptionError, match="cat.v2.metadata.json: .*expected") as caught:
        describe(cat)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500
    assert snapshot(cat.parent) == before


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_a_regular_file_is_read_or_replaced(cat: Path, tmp_path: Path, kind: str) -> None:
    target, elsewhere = cat.with_name("cat.v2.metadata.json"), tmp_path / "elsewhere.json"
    if kind == "link":
        elsewhere.write_text('{"notes": "secret"}')
    {"pipe": lambda: os.mkfifo(target), "folder": target.mkdir}.get(kind, lambda: target.symlink_to(elsewhere))()
    with pytest.raises(DescriptionError, match="expected a regular file"):
        describe(cat)
    assert elsewhere.exists() == (kind == "link") and (kind != "link" or elsewhere.read_text() == '{"notes": "secret"}')


def test_a_failed_write_leaves_no_trace(cat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(cat.parent)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    for place in (
        "loradex.app.describe.text_edit.tempfile.mkstemp",
        "loradex.app.describe.text_edit.sync",
        "pathlib.Path.replace",
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, refuse)
            with pytest.raises(DescriptionError, match="cannot be written: Permission denied"):
                describe(cat)
        assert snapshot(cat.parent) == before


def test_a_change_since_the_file_was_read_is_not_overwritten(cat: Path) -> None:
    edit = plan_side_car(LoraFile.open(cat), PIZZA, SPACE)
    cat.with_name("cat.v2.metadata.json").write_text('{"notes": "just now"}')
    before = snapshot(cat.parent)
    with pytest.raises(DescriptionError, match="run this again"):
        apply_edit(edit, cat)
    assert snapshot(cat.parent) == before


def test_a_side_car_for_download(cat: Path) -> None:
    before = snapshot(cat.parent)
    document = new_side_car(LoraFile.open(cat), PIZZA, SPACE)
    assert (document["file_path"], document["preview_url"], document["tags"]) == (cat.name, "", ["pizza"])
    assert str(cat.parent) not in json.dumps(document) and snapshot(cat.parent) == before


def test_notes_claim_to_have_read_weights_only_where_an_expert_did(cat: Path) -> None:
    refused = LabelAnswer("x.safetensors", "sd1", [], "no expert reads sd1", refused=True)
    assert summary_line(LoraFile.open(cat), refused).startswith("Family sd1, format kohya")
    assert summary_line(LoraFile.open(cat), label_answer(("dog", 0.1), reason="a doubt")).startswith(
        "Loradex read from the weights: unknown. Family sd1"
    )
