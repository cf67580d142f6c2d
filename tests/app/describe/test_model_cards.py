"""Model cards, read back by the hub's library."""

import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from loradex.app.describe.model_cards import plan_card, plan_edit
from loradex.app.describe.text_edit import PlannedEdit, apply_edit
from loradex.app.search.answers import LabelAnswer
from loradex.retrieval.errors import DescriptionError
from loradex.retrieval.lora import LoraFile
from tests.app.describe.samples import DOG, PIZZA, SPACE, UNSURE, snapshot, write_lora

PERSONS_CARD = """---
# my own card
license: mit   # as you like
"tags": [ 'cute',  "lora" ]
language:
  - en
base_model: "me/my-model"
widget:
- text: |
    tags:
    - not a field
---
# A cat

---
tags: none of the block
"""


def describe(path: Path, answer: LabelAnswer = PIZZA) -> PlannedEdit:
    edit = plan_card(LoraFile.open(path), answer, SPACE)
    if edit.changes:
        apply_edit(edit, path)
    return edit


def read(path: Path) -> dict[str, Any]:
    fields: dict[str, Any] = ModelCard.load(path.with_name("README.md")).data.to_dict()
    return fields


def write(path: Path, text: str) -> None:
    path.with_name("README.md").write_bytes(text.encode())


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    return write_lora(
        tmp_path / "cat" / "cat.safetensors", modelspec__trigger_phrase="mycat: a cat", modelspec__title="My <b>cat</b>"
    ).path


def test_a_new_card(cat: Path) -> None:
    describe(cat)
    fields = read(cat)
    entries = fields.pop("loradex")
    assert fields == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["lora", "pizza"],
        "base_model": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "instance_prompt": "mycat: a cat",
    }
    assert entries.pop("wrote") == fields
    assert entries["labels"][0] == {"label": "pizza", "probability": 0.721} and entries["space"] == SPACE
    text = cat.with_name("README.md").read_text("utf-8")
    assert (
        "# My \\<b\\>cat\\</b\\>\n" in text
        and text == plan_edit(Path("README.md"), None, LoraFile.open(cat), PIZZA, SPACE).after
    )


@pytest.mark.parametrize(("family", "expected"), [("wan", "text-to-video"), ("unknown", "text-to-image")])
def test_other_families(tmp_path: Path, family: str, expected: str) -> None:
    path = write_lora(tmp_path / "a.safetensors", family).path
    describe(path, UNSURE)
    assert (read(path)["pipeline_tag"], read(path)["tags"], read(path)["loradex"]["label"]) == (
        expected,
        ["lora"],
        "unknown",
    )
    assert "base_model" not in read(path)


def test_a_second_run_changes_nothing_and_planning_writes_nothing(cat: Path) -> None:
    before = snapshot(cat.parent)
    assert plan_card(LoraFile.open(cat), PIZZA, SPACE).changes and snapshot(cat.parent) == before
    describe(cat)
    before = snapshot(cat.parent)
    assert describe(cat).changes == [] and snapshot(cat.parent) == before


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_what_a_person_wrote_stays_to_the_byte(cat: Path, line_break: str, bom: str) -> None:
    text = bom + PERSONS_CARD.replace("\n", line_break)
    write(cat, text)
    describe(cat)
    after = cat.with_name("README.md").read_bytes().decode()
    start = text.index(f"{line_break}---{line_break}# A cat")
    assert after.startswith(text[:start]) and after.endswith(text[start:])
    assert after.count("\n") == after.count(line_break)
    fields = read(cat)
    assert (fields["tags"], fields["base_model"], fields["library_name"], fields["license"]) == (
        ["cute", "lora"],
        "me/my-model",
        "diffusers",
        "mit",
    )
    assert describe(cat).changes == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# A cat\n\nno block\n",
        "---\n# nothing yet\n---\n",
        "---\ntags:   # to do\nbase_model: ''\nlicense: null\n---\nbody",
    ],
)
def test_empty_fields_are_filled(cat: Path, text: str) -> None:
    write(cat, text)
    describe(cat)
    after = cat.with_name("README.md").read_text("utf-8")
    assert read(cat)["tags"] == ["lora", "pizza"] and read(cat)["base_model"].startswith("stable-diffusion-v1-5/")
    assert all(line in after.splitlines() or "tags:" in line or "base_model" in line for line in text.splitlines())
    assert after.endswith(text.rpartition("---\n")[2]) and ("# to do" in text) == ("# to do" in after)
    assert describe(cat).changes == []


def test_loradex_updates_and_takes_back_its_values(cat: Path) -> None:
    describe(cat)
    changes = {change.field: (change.old, change.new) for change in describe(cat, DOG).changes}
    assert changes["tags"] == (["lora", "pizza"], ["lora", "dog"]) and set(changes) == {"tags", "loradex"}
    write_lora(cat)
    changes = {change.field: (change.old, change.new) for change in describe(cat, UNSURE).changes}
    assert changes["instance_prompt"] == ("mycat: a cat", None)
    assert "instance_prompt" not in read(cat) and read(cat)["tags"] == ["lora"]
    assert describe(cat, UNSURE).changes == []


@pytest.mark.parametrize("edited", ["tags: [lora, pizza]", "tags:\n- lora\n- pizza\n- mine", "tags:\n- lora"])
def test_what_a_person_changed_is_left_alone(cat: Path, edited: str) -> None:
    describe(cat)
    write(cat, cat.with_name("README.md").read_text("utf-8").replace("tags:\n- lora\n- pizza", edited, 1))
    for answer in (DOG, UNSURE, PIZZA):
        describe(cat, answer)
        assert edited in cat.with_name("README.md").read_text("utf-8")


def test_a_folder_with_several_loras_gets_no_card(cat: Path) -> None:
    write_lora(cat.with_name("dog.safetensors"))
    before = snapshot(cat.parent)
    with pytest.raises(DescriptionError, match="found 2; .*--as side-car"):
        describe(cat)
    assert snapshot(cat.parent) == before


HOSTILE = {
    "no end": "---\ntags: x\n# body",
    "no mapping": "---\n- x\n---\n",
    "one line": "---\n{license: mit}\n---\n",
    "broken": "---\ntags: [x\n---\n",
    "twice": "---\ntags: x\ntags: y\n---\n",
    "bomb": "---\na: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\n",
    "code": "---\na: !!python/object/apply:os.system ['true']\n---\n",
    "deep": "---\na: " + "[" * 3000 + "]" * 3000 + "\n---\n",
    "NUL": "---\na: \x00\n---\n",
    "long": "---\na: " + "x" * 2**16 + "\n---\n",
    "huge": "x" * 2**23,
    "lists as keys": "---\n? [a]\n: b\n---\n",
    "own key with something else": "---\nloradex: mine\n---\n",
    "ended": "---\nlicense: mit\n...\n---\n",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_card_is_refused_and_left_alone(cat: Path, text: str) -> None:
    write(cat, text)
    before = snapshot(cat.parent)
    with pytest.raises(DescriptionError, match="README.md: expected") as caught:
        describe(cat)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert snapshot(cat.parent) == before


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_is_not_followed(cat: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.md").write_text("# mine")
    cat.with_name("README.md").symlink_to(tmp_path / "elsewhere.md")
    with pytest.raises(DescriptionError, match="expected a regular file"):
        describe(cat)
    assert (tmp_path / "elsewhere.md").read_text() == "# mine"


def test_a_lora_named_readme_is_left_alone(tmp_path: Path) -> None:
    path = write_lora(tmp_path / "README.md").path
    before = snapshot(tmp_path)
    with pytest.raises(DescriptionError):
        describe(path)
    assert snapshot(tmp_path) == before
