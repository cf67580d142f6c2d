"""Zoos to test on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from zoo_oracle import DIM, SPACE

from loradex.index import Zoo
from loradex.index.milvus import MilvusZoo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a zoo may be made; the name needs care in a URI."""
    return tmp_path / "zoo #1?mode=x 100%"


@pytest.fixture(params=["folder", "milvus"])
def zoo(folder: Path, request: pytest.FixtureRequest) -> Iterator[Zoo | MilvusZoo]:
    """An empty zoo, open for writing, on each engine: what is tested with it holds for all."""
    kind = Zoo if request.param == "folder" else MilvusZoo
    with kind.create(folder, SPACE, DIM) as made:
        yield made
