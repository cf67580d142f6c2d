"""The family of a base model, told by what its header says."""

import pytest
from starlette.testclient import TestClient

from loradex.app.client import Client
from loradex.app.paths import MINIATURE
from loradex.retrieval.lora.header import Header
from tests.app.api.serving import served

BLOCK = "{}input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("tensors", "family"),
    [
        ({BLOCK.format("model.diffusion_model.", 1): [320, 768]}, "sd1"),
        ({BLOCK.format("model.diffusion_model.", 4): [640, 2048]}, "sdxl"),
        ({BLOCK.format("", 1): [320, 1024]}, "sd2"),
        ({BLOCK.format("model.diffusion_model.", 1): [320, 999]}, "unknown"),
        ({"a.weight": [1]}, "unknown"),
        ({"a.weight": [0, 5], "": [2, 2]}, "unknown"),
    ],
)
def test_families(http: TestClient, tensors: dict[str, list[int]], family: str) -> None:
    answer = http.post("family", json={"tensors": tensors})
    assert (answer.status_code, answer.json()) == (200, {"family": family})


@pytest.mark.parametrize(
    "body", [{}, {"tensors": {}}, {"tensors": {"a": [-1]}}, {"tensors": {"a": [1] * 9}}, {"tensors": {"a" * 301: [1]}}]
)
def test_headers_that_cannot_be(http: TestClient, body: dict[str, object]) -> None:
    answer = http.post("family", json=body)
    assert (answer.status_code, answer.json()["error"]["kind"]) == (422, "QueryError")


def test_the_client(http: TestClient) -> None:
    base = next((MINIATURE / "trees" / "mini-b").rglob("unet/*.safetensors"))
    tensors = {name: info.shape for name, info in Header.read(base).tensors.items()}
    with served(http.app) as address, Client(address) as client:
        assert client.family(tensors) == {"family": "mini-b"}
