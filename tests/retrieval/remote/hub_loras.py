"""Helpers for LoRAs of the miniature on a hub."""

from pathlib import Path

import torch

from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.remote import HubRepository, RemoteModel
from tests.hub import Hub

NAME = "someone/my-loras"
SHIPPED = sorted((MINIATURE / "models").glob("*/test_holdout/*/*.safetensors"))
SHIPPED = [SHIPPED[0], SHIPPED[1], SHIPPED[-1]]  # two of one tree, one of the other


def open_repository(hub: Hub, address: str = f"hf://{NAME}") -> HubRepository:
    hub.cdn_requests.clear()
    return HubRepository.open(address)


def read_model(hub: Hub, encoder: Encoder, name: str) -> RemoteModel:
    repository = open_repository(hub)
    return repository.read(next(file for file in repository.files if file.name == name), encoder)


def assert_same_as_local(model: RemoteModel, path: Path, encoder: Encoder) -> None:
    """The remote model equals that of the whole file on this machine."""
    lora = LoraFile.open(path)
    assert model.vector is not None
    torch.testing.assert_close(model.vector, encoder.encode_file(lora), rtol=0, atol=1e-6)
    assert (model.family, model.format, model.ranks, model.layers) == (
        lora.family,
        lora.format,
        lora.ranks,
        list(lora.layers),
    )
    assert (model.metadata, model.facts) == (lora.header.metadata, lora.facts)


def assert_one_line(error: LoradexError, *parts: str) -> None:
    message = str(error)
    assert message.isprintable()
    assert len(message) < 500
    for part in ("expected", "found", *parts):
        assert part in message
