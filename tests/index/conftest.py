"""Zoos to test on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from zoo_oracle import DIM, SPACE

from index import Zoo


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a zoo may be made; the name needs care in a URI."""
    return tmp_path / "zoo #1?mode=x 100%"


@pytest.fixture
def zoo(folder: Path) -> Iterator[Zoo]:
    """An empty zoo, open for writing."""
    with Zoo.create(folder, SPACE, DIM) as made:
        yield made
