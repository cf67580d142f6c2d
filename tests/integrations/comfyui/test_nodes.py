"""The nodes, over a real server with the miniature. ComfyUI's modules are stand-ins here (``stand_ins.py``)."""

import json
import operator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from loradex.app.client import Client
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.web.middleware import AccessMiddleware, Login
from loradex.app.web.upload_folder import UploadFolder
from tests.app.api.serving import served
from tests.integrations.comfyui.conftest import LORAS
from tests.integrations.comfyui.hostile_server import answering, fixed
from tests.integrations.comfyui.stand_ins import ComfyUI

NOTHING = {"text": "", "minus": "", "family": "", "index": 1, "strength": 1.0}


@pytest.fixture
def nodes(pack: ModuleType, comfyui: ComfyUI, loradex: str) -> ModuleType:
    comfyui.set_address(loradex)
    return import_module(f"{pack.__name__}.nodes")


def search(nodes: ModuleType, **inputs: Any) -> tuple[Any, ...]:
    return nodes.LoradexSearch().search(**{**NOTHING, **inputs})["result"]


def test_comfyui_finds_nodes_and_pages(pack: ModuleType, comfyui: ComfyUI) -> None:
    assert set(pack.NODE_CLASS_MAPPINGS) == set(pack.NODE_DISPLAY_NAME_MAPPINGS) == {"LoradexSearch", "LoradexWords"}
    assert (Path(pack.__file__).parent / pack.WEB_DIRECTORY / "loradex.js").is_file()
    assert set(comfyui.routes.handlers) == {f"/loradex/{name}" for name in ("status", "search", "family", "drawing")}
    for node in pack.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION))
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)
        json.dumps([node.INPUT_TYPES(), node.RETURN_TYPES])  # as /object_info sends them


def test_a_text_finds_a_file_that_loaders_take(nodes: ModuleType, comfyui: ComfyUI) -> None:
    name, strength, words, score, hits = search(nodes, text="studio microphone", strength=0.8)
    assert (LORAS / name).is_file() and name in comfyui.names("loras")
    assert "1761" in name  # the miniature's LoRA of a studio microphone
    assert (strength, words) == (0.8, "") and score > 0
    assert hits.splitlines()[0].startswith(f"1. {name} · ")
    assert search(nodes, text="studio microphone", index=2)[0] == hits.splitlines()[1].split(" · ")[0].removeprefix(
        "2. "
    )


def test_what_draws_alike_and_pictures(nodes: ModuleType, loradex: str) -> None:
    name = search(nodes, text="studio microphone")[0]
    drawing = SHIPPED_ZOO / "previews" / "01e07ea07f057036eee0.png"
    with Client(loradex) as client:
        alike = client.search(models=["01e07ea07f057036eee0"], limit=100)["hits"]
        pictured = client.search(pictures=[drawing], limit=100)["hits"]
    assert LORAS / search(nodes, like=name.replace("/", "\\"))[0] == first_here(alike) != LORAS / name
    with Image.open(drawing) as opened:
        picture = torch.tensor(np.asarray(opened.convert("RGB"))) / 255
    assert LORAS / search(nodes, image=picture[None])[0] == first_here(pictured)


def first_here(hits: list[dict[str, Any]]) -> Path:
    """The first hit whose file is in the folder of the stand-in."""
    return next(path for hit in hits if (path := Path(hit["place"])).is_relative_to(LORAS))


def test_minus_and_family(nodes: ModuleType) -> None:
    first = search(nodes, text="studio microphone")[0]
    assert search(nodes, text="cat", minus="studio microphone")[0] != first
    with pytest.raises(nodes.LoradexError, match="found 0"):
        search(nodes, text="studio microphone", family="mini-b")  # its files are not in the folder


def test_messages(nodes: ModuleType, comfyui: ComfyUI) -> None:
    with pytest.raises(nodes.LoradexError, match="write a text"):
        search(nodes)
    with pytest.raises(nodes.LoradexError, match=r"found no 'gone\.safetensors'"):
        search(nodes, like="gone.safetensors")
    with pytest.raises(nodes.LoradexError, match="text"):
        search(nodes, text="x" * 400)
    comfyui.set_address("http://127.0.0.1:9")
    with pytest.raises(nodes.LoradexError, match="start it with `loradex serve --api --port 9`"):
        search(nodes, text="cat")


def test_a_name_output_fits_every_loader(nodes: ModuleType) -> None:
    output = nodes.LoradexSearch.RETURN_TYPES[0]
    inputs: list[object] = [["a.safetensors"], [], "COMBO", "*", "STRING", "MODEL"]
    assert [operator.ne(output, each) for each in inputs] == [False] * 4 + [True] * 2  # as ComfyUI compares types
    assert json.dumps(output) == '"COMBO"' and hash(output) == hash("COMBO")


def test_slashes_of_either_kind_are_valid(nodes: ModuleType, comfyui: ComfyUI) -> None:
    name = comfyui.names("loras")[0]
    for written in (name, name.replace("/", "\\"), nodes.NO_LORA):
        assert nodes.LoradexSearch.VALIDATE_INPUTS(like=written) is True
    assert nodes.LoradexWords.VALIDATE_INPUTS(lora_name=name.replace("/", "\\")) is True
    assert "choose another" in nodes.LoradexWords.VALIDATE_INPUTS(lora_name="gone")
    assert nodes.LoradexWords.VALIDATE_INPUTS() is True  # a linked input is not known yet


def test_what_follows_is_made_again_only_for_another_answer(nodes: ModuleType, comfyui: ComfyUI) -> None:
    def key(text: str | None) -> str:
        return nodes.LoradexSearch.IS_CHANGED(**{**NOTHING, "text": text})

    assert key("studio microphone") == key("studio microphone") != key("cat")
    assert key(None) == ""
    comfyui.set_address("http://127.0.0.1:9")
    assert "found none" in key("cat")


def test_words_of_a_file_in_the_zoo(nodes: ModuleType) -> None:
    name = search(nodes, text="studio microphone")[0]
    words, draws, probability, details = nodes.LoradexWords().describe(name, 5)["result"]
    assert (words, draws, probability) == ("", "studio microphone", 0.979)
    assert details == "draws: studio microphone · 98%"


def test_words_of_a_file_that_was_renamed(nodes: ModuleType, comfyui: ComfyUI, tmp_path: Path) -> None:
    source = LORAS / search(nodes, text="studio microphone")[0]
    (tmp_path / "my loras").mkdir()
    (tmp_path / "my loras" / "ü '🍕\".safetensors").write_bytes(source.read_bytes())
    comfyui.folders["loras"] = [tmp_path / "my loras"]
    assert nodes.LoradexWords().describe("ü '🍕\".safetensors", 5)["result"][1] == "studio microphone"
    (tmp_path / "my loras" / "broken.safetensors").write_bytes(b"no LoRA")
    with pytest.raises(nodes.LoradexError, match=r"broken\.safetensors"):
        nodes.LoradexWords().describe("broken.safetensors", 5)


def test_words_of_a_file_in_no_zoo(nodes: ModuleType, comfyui: ComfyUI, loradex: str) -> None:
    comfyui.folders["loras"] = [folder := MINIATURE / "captioned" / "mini-b" / "several"]
    with Client(loradex) as client:
        (expected,) = client.words(folder / "b1-0176.safetensors", count=3)["results"]
    words, draws, probability, details = nodes.LoradexWords().describe("b1-0176.safetensors", 3)["result"]
    assert words == ", ".join(word["word"] for word in expected["words"] if word["probability"] >= 0.5) != ""
    assert (draws, probability) == ("", 0.0)  # no expert reads its layers
    assert details.startswith(f"word in its weights: {expected['words'][0]['word']} · ")


def test_a_login(
    nodes: ModuleType, comfyui: ComfyUI, api: FastAPI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # a folder for uploads names itself in the environment
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    gate = AccessMiddleware(api, Login.of("me", "secret"), None, UploadFolder(), ("/api/",))
    with served(gate) as address:
        comfyui.set_address(address)
        with pytest.raises(nodes.LoradexError, match="expected its login, found none"):
            search(nodes, text="cat")
        (comfyui.user / "__loradex").mkdir()
        (comfyui.user / "__loradex" / "login.txt").write_text("me:wrong")
        with pytest.raises(nodes.LoradexError, match="found a wrong one"):
            search(nodes, text="cat")
        (comfyui.user / "__loradex" / "login.txt").write_text("me:secret")
        assert search(nodes, text="cat")[0]


def test_a_server_that_gives_too_much_of_everything(nodes: ModuleType, comfyui: ComfyUI) -> None:
    hit = {"id": "1", "name": "<b>" * 50, "path": "/x/y.safetensors", "words": [{}] * 50, "family": None}
    page = {"hits": [hit] * 10_000, "next": 1}
    with answering(fixed("200 OK", "application/json", json.dumps(page).encode())) as (address, requests):
        comfyui.set_address(address)
        with pytest.raises(nodes.LoradexError, match="found 0"):
            search(nodes, text="cat")
        assert len(requests) <= 2 * (1 + 24)  # two pages, as the second does not go on; the hits of each looked up
    for rubbish in ({"hits": 5}, {"hits": [5, {"id": 5}, {}]}, {"hits": [{"id": "1", "score": "NaN", "copies": 7}]}):
        with answering(fixed("200 OK", "application/json", json.dumps(rubbish).encode())) as (address, _):
            comfyui.set_address(address)
            with pytest.raises(nodes.LoradexError, match="found 0"):
                search(nodes, text="cat")
