"""The list of experts: how they were made, from which base model, whose figures they have, and what keeps them back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from loradex.app.bases.shipped import shipped_base
from loradex.app.paths import encoder_folders, user_encoder, user_zoo
from loradex.app.sharing.adding import add_expert
from loradex.app.sharing.listing import ListedExpert, list_experts, show_expert
from loradex.retrieval.errors import CheckpointError
from tests.app.sharing.small_experts import ENCODER, MADE, put, small_expert


def listed() -> dict[str, ListedExpert]:
    return {f"{expert.source} {expert.tree}": expert for expert in list_experts(encoder_folders())}


def test_what_ships() -> None:
    experts = listed()
    assert list(experts) == ["ships mini-a", "ships mini-b", "ships mini-resnet", "ships mini-vit"]
    one = experts["ships mini-a"]
    assert (one.kind, one.task, one.state, one.base, one.layers) == ("trained", "draws", "ready", "not noted", 56)
    assert one.figures is not None and one.figures["measured_by"] == "measured here"
    assert one.id is not None and len(one.id) == 20 and one.bytes == Path(one.path).stat().st_size
    assert experts["ships mini-vit"].task == "categories" and experts["ships mini-vit"].id is None
    json.dumps([expert.document() for expert in experts.values()])


@pytest.mark.parametrize(
    ("fingerprint", "family", "base"),
    [
        (shipped_base("mini-b").fingerprint, "mini-b", "the same"),
        ("0123", "mini-b", "another"),
        ("0123", "sdxl", "none at hand"),
        (None, "mini-b", "not noted"),
    ],
)
def test_the_base_model_at_hand_is_compared(fingerprint: str | None, family: str, base: str) -> None:
    made = replace(MADE, fingerprint=fingerprint, family=family)
    put(small_expert(provenance=made.document()), user_encoder())
    expert = listed()["own shared-b"]
    assert (expert.kind, expert.base, expert.provenance) == ("grown", base, made.document())


def test_states(tmp_path: Path) -> None:
    put(small_expert("mini-b"), user_encoder())
    shutil.copy(user_encoder() / "experts" / "mini-b.safetensors", user_encoder() / "experts" / "shared.safetensors")
    (user_encoder() / "experts" / "broken.safetensors").write_bytes(b"nothing")
    small_expert("other", space="clip-256-000000000000").expert.save(
        user_encoder() / "experts" / "other.safetensors", "loradex-expert-2"
    )
    experts = list_experts(encoder_folders())
    states = {(expert.source, Path(expert.path).stem): expert.state for expert in experts}
    assert states["own", "broken"] == "damaged" and states["own", "other"] == "another space"
    assert states["own", "mini-b"] == "ready" and states["own", "shared"] == states["ships", "mini-b"] == "hidden"
    assert all((expert.reason is None) == (expert.state == "ready") for expert in experts)


def test_a_file_and_the_expert_made_of_it_are_shown_alike(tmp_path: Path) -> None:
    small_expert().write(tmp_path / "b.safetensors")
    of_file = show_expert(str(tmp_path / "b.safetensors"), encoder_folders())
    add_expert(str(tmp_path / "b.safetensors"), user_encoder(), user_zoo())
    shown = show_expert("shared-b", encoder_folders())
    same = (
        "id",
        "tree",
        "family",
        "kind",
        "provenance",
        "figures",
        "settings",
        "layers",
        "text_encoder",
        "templates",
        "base",
    )
    assert {name: of_file[name] for name in same} == {name: shown[name] for name in same}
    assert (of_file["source"], shown["source"], shown["figures"]["measured_by"]) == ("file", "own", "claimed")
    assert shown["settings"]["sketch"]["layers"] and "tree" not in shown["settings"]


def test_nothing_and_damage(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found mini-a, mini-b; see `loradex expert list`"):
        show_expert("nothing", [ENCODER])
    put(small_expert(), user_encoder())
    (user_encoder() / "experts" / "shared-b.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="shared-b"):
        show_expert("shared-b", encoder_folders())
