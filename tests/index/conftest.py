"""Fixtures: empty zoos in each store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from loradex.index import Zoo
from loradex.index.milvus.zoo import MilvusZoo
from tests.index.zoo_oracle import DIM, SPACE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A path for a zoo, with characters that must be quoted in a URI."""
    return tmp_path / "zoo #1?mode=x 100%"


@pytest.fixture(params=["folder", "milvus"])
def zoo(folder: Path, request: pytest.FixtureRequest) -> Iterator[Zoo | MilvusZoo]:
    """An empty zoo in each store, open for writing: tests that use it are the contract of all stores."""
    zoo_class = Zoo if request.param == "folder" else MilvusZoo
    with zoo_class.create(folder, SPACE, DIM) as zoo:
        yield zoo
