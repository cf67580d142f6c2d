"""Which file of a model answers a search."""

from dataclasses import replace

import pytest

from loradex.app.search.places import Place, find_place
from loradex.index import KnownFile, Model

MODEL = Model("id", "BetterHands_v2", "sd1", "/loras/hands/BetterHands_v2.safetensors", facts={"tags": ["anatomy"]})
FILES = [
    KnownFile("/backup/old/fixed fingers.safetensors", 1, 1, "id", name="fixed fingers"),
    KnownFile(str(MODEL.path), 1, 1, "id"),
    KnownFile(
        "/loras/Español/canción.safetensors",
        1,
        1,
        "id",
        name="canción",
        facts={"trigger_words": ["Straße"], "title": 3},
    ),
]
OWN, FINGERS, SONG = (FILES[at].path for at in (1, 0, 2))


@pytest.mark.parametrize(
    ("texts", "folder", "path"),
    [
        ((), None, OWN),
        (("nothing of this",), None, OWN),
        (("better hands",), None, OWN),
        (("anatomy",), None, OWN),
        (("fingers",), None, FINGERS),
        (("the OLD fingers",), None, FINGERS),  # the folder's name, and a word that is not looked up
        (("hands", "fingers"), None, OWN),  # one word of each: the model's own goes first
        (("anatomy of hands", "fixed_fingers"), None, OWN),
        (("cancion",), None, SONG),
        (("CANCIÓN strasse",), None, SONG),
        (("espanol",), None, SONG),
        (("fingers",), "/loras", OWN),  # the folder goes before the words
        (("strasse",), "/loras/", SONG),
        ((), "/backup", FINGERS),
        ((), "/back", OWN),  # no folder's name
        ((), "/elsewhere", OWN),
    ],
)
def test_the_file_that_answers(texts: tuple[str, ...], folder: str | None, path: str) -> None:
    expected = {OWN: MODEL.name, FINGERS: "fixed fingers", SONG: "canción"}[path]
    assert find_place(MODEL, FILES, "/zoo", texts, folder) == Place(path, expected)


def test_two_words_beat_one() -> None:
    assert find_place(MODEL, FILES, "/zoo", ["hands", "fixed fingers old"]).path == FINGERS


def test_a_file_noted_without_its_name_has_that_of_its_path() -> None:
    """An older Loradex noted no names; trainers give every file the same one, so then it is the folder's."""
    for path, name in (
        ("/old/canine.safetensors", "canine"),
        ("/old/canine/pytorch_lora_weights.safetensors", "canine"),
        ("hf://owner/canine/dog.safetensors", "dog.safetensors"),
    ):
        files = [*FILES, KnownFile(path, 1, 1, "id")]
        assert find_place(MODEL, files, "/zoo", folder=path.rpartition("/")[0]) == Place(path, name)


def test_a_model_without_known_files_is_at_its_own_path() -> None:
    assert find_place(replace(MODEL, path=None), [], "/zoo", ["hands"]) == Place(None, MODEL.name)
    assert find_place(replace(MODEL, path="../models/a.safetensors"), [], "/zoo/z").path == "/zoo/models/a.safetensors"
    assert find_place(replace(MODEL, path="hf://a/b"), [], "/zoo", folder="hf://a") == Place("hf://a/b", MODEL.name)
