"""The routes of the sidebar, over a real server with the miniature. ComfyUI's modules are stand-ins here."""

import asyncio
import json
import struct
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.integrations.comfyui.stand_ins import ComfyUI, Request, Response


def call(comfyui: ComfyUI, route: str, **query: str) -> Response:
    async def answer() -> Response:
        return await comfyui.routes.handlers[f"/loradex/{route}"](Request(query))

    return asyncio.run(answer())


@pytest.fixture(autouse=True)
def address(pack: ModuleType, comfyui: ComfyUI, loradex: str) -> None:
    comfyui.set_address(loradex)


def test_status(comfyui: ComfyUI, loradex: str) -> None:
    assert call(comfyui, "status").document() == {
        "address": loradex,
        "zoo": "miniature",
        "models": 300,
        "families": {"mini-a": 201, "mini-b": 99},
        "loras": len(comfyui.names("loras")),
    }


def test_search_and_drawing(comfyui: ComfyUI) -> None:
    page = call(comfyui, "search", text="studio microphone").document()
    first = page["hits"][0]
    assert first["file"] in comfyui.names("loras") and first["draws"] == [["studio microphone", 0.979]]
    assert page["next"] == len(page["hits"]) == 24
    following = call(comfyui, "search", text="studio microphone", offset="24").document()["hits"]
    assert not {hit["id"] for hit in following} & {hit["id"] for hit in page["hits"]}
    alike = call(comfyui, "search", model=first["id"], family="mini-a").document()
    assert first["id"] not in [hit["id"] for hit in alike["hits"]] and alike["hits"][0]["family"] == "mini-a"
    drawing = call(comfyui, "drawing", id=first["id"])
    assert drawing.content_type == "image/png" and drawing.body.startswith(b"\x89PNG")
    assert drawing.headers["X-Content-Type-Options"] == "nosniff"
    assert call(comfyui, "drawing", id="../zoo").status == 404


@pytest.mark.parametrize("query", [{}, {"text": "  "}, {"text": "cat", "offset": "-1"}, {"text": "cat", "offset": "x"}])
def test_queries_that_say_nothing(comfyui: ComfyUI, query: dict[str, str]) -> None:
    assert call(comfyui, "search", **query).document()["error"]["kind"] == "NoQuery"


def test_no_server_is_an_answer(comfyui: ComfyUI) -> None:
    comfyui.set_address("http://127.0.0.1:9")
    for route in ("status", "search"):
        error = call(comfyui, route, text="cat").document()["error"]
        assert (error["kind"], error["command"]) == ("NoServer", "loradex serve --api --port 9")
    assert call(comfyui, "drawing", id="1").status == 404


def checkpoint(path: Path, names: dict[str, list[int]]) -> None:
    entries = {name: {"dtype": "F16", "shape": shape, "data_offsets": [0, 0]} for name, shape in names.items()}
    header = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)


def test_the_family_of_a_checkpoint(comfyui: ComfyUI) -> None:
    folder = comfyui.folders["checkpoints"][0]
    block = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
    checkpoint(folder / "one.safetensors", {block.format(1): [320, 768], "cond_stage_model.x.weight": [9, 9]})
    checkpoint(folder / "xl.safetensors", {block.format(4): [640, 2048]})
    (folder / "old.ckpt").write_bytes(b"\x80\x02")
    (folder / "odd.safetensors").write_bytes(b"\xff" * 100)
    for name, family in {"one.safetensors": "sd1", "xl.safetensors": "sdxl", "odd.safetensors": "unknown"}.items():
        assert call(comfyui, "family", folder="checkpoints", name=name).document() == {"family": family}
    assert call(comfyui, "family", folder="checkpoints", name="old.ckpt").document() == {"family": "unknown"}
    for where, name in (("checkpoints", "gone"), ("loras", comfyui.names("loras")[0]), ("user", "x")):
        assert call(comfyui, "family", folder=where, name=name).document()["error"]["kind"] == "FileMissing"


def test_a_fault_of_the_pack_is_an_answer(
    comfyui: ComfyUI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys.modules["folder_paths"], "get_filename_list", fail)
    assert call(comfyui, "status").document()["error"]["kind"] == "InternalError"
    assert "ZeroDivisionError" in caplog.text
