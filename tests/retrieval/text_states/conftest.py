"""One pipeline of each family, saved once for all tests of this folder."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from loradex.retrieval.base_model import BaseModel
from tests.retrieval.text_states.pipelines import pipeline, save_checkpoint, save_folder


@dataclass(frozen=True)
class Saved:
    pipe: Any
    folder: BaseModel
    file: BaseModel


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    @cache
    def save(family: str) -> Saved:
        path = tmp_path_factory.mktemp(family)
        pipe = pipeline(family)
        file = save_checkpoint(pipe, family, path / "model.safetensors")
        return Saved(pipe, save_folder(pipe, family, path / "folder"), file)

    return save
