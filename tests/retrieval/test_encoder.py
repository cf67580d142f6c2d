"""The everyday texts of an encoder: those of its own file, or enough default labels."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import EVERYDAY_FILE, LABELS_FILE, MIN_EVERYDAY_TEXTS, SPACE_FILE, Encoder
from loradex.retrieval.space.labels import LabelList

DIM = 256  # of the miniature's space


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder folder with the miniature's space, and nothing else."""
    shutil.copy(MINIATURE / "encoder" / SPACE_FILE, tmp_path)
    return tmp_path


def put_texts(path: Path, count: int) -> None:
    """Write texts with random vectors."""
    vectors = F.normalize(torch.randn(count, DIM), dim=-1)
    LabelList(tuple(map(str, range(count))), vectors).save(path)


@pytest.mark.parametrize(
    ("labels", "compares"), [(0, False), (MIN_EVERYDAY_TEXTS - 1, False), (MIN_EVERYDAY_TEXTS, True)]
)
def test_few_labels_are_not_compared_with(folder: Path, labels: int, compares: bool) -> None:
    """The better of few texts would never be likely; without everyday texts scores are cosines."""
    if labels:
        put_texts(folder / LABELS_FILE, labels)
    encoder = Encoder.load(folder)
    assert (encoder.everyday_texts is not None, bool(encoder.likelihoods)) == (compares, compares)


def test_everyday_texts_of_their_own_come_first(folder: Path) -> None:
    put_texts(folder / LABELS_FILE, 3)
    put_texts(folder / EVERYDAY_FILE, 600)
    encoder = Encoder.load(folder)
    assert encoder.everyday_texts is not None
    assert len(encoder.everyday_texts) == 600
    assert len(encoder.default_labels.names) == 3
