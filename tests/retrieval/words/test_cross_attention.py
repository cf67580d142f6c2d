"""Row spaces of updates, and which layers of a file are read."""

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, NoWords, NoWordsReason
from loradex.retrieval.lora import LayerUpdate, LoraFile
from loradex.retrieval.words.cross_attention import MAX_RANK, read_keys_and_values, row_space
from tests.retrieval.lora.products import some_products
from tests.retrieval.words.captioned_layers import save_lora

KEYS = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
QUERIES = KEYS.replace("to_k", "to_q")
SELF = KEYS.replace("attn2", "attn1")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gram(update: Tensor) -> Tensor:
    """dWᵀ dW, at trace 1."""
    product = update.mT @ update
    return product / product.trace()


def test_a_row_space_is_that_of_the_dense_update_however_it_is_factorised() -> None:
    down, up, turn = random(4, 20), random(30, 4, seed=1), random(4, 4, seed=2)
    turned = LayerUpdate(turn @ down, 3 * up @ torch.linalg.inv(turn))
    doubled = LayerUpdate(torch.cat([down, down]), torch.cat([up, up], 1) / 2)
    for update in (LayerUpdate(down, up), turned, doubled):
        rows = row_space(update)
        assert rows is not None
        torch.testing.assert_close(rows.mT @ rows, gram(up @ down), atol=1e-5, rtol=1e-4)
        assert float(rows.norm()) == pytest.approx(1)


def test_of_a_high_rank_the_leading_directions_are_read() -> None:
    left, right = torch.linalg.qr(random(120, 100)).Q, torch.linalg.qr(random(110, 100, seed=1)).Q
    lengths = torch.linspace(2, 1, 100)
    rows = row_space(LayerUpdate(right.mT * lengths[:, None], left))
    assert rows is not None and rows.shape == (MAX_RANK, 110)
    leading = (left * lengths)[:, :MAX_RANK] @ right.mT[:MAX_RANK]
    torch.testing.assert_close(rows.mT @ rows, gram(leading), atol=1e-5, rtol=1e-3)


def test_of_products_the_leading_directions_are_read() -> None:
    for update, dense in some_products(200, 160):
        rows, all_rows = row_space(update), row_space(LayerUpdate(dense, torch.eye(200)))
        assert rows is not None
        assert all_rows is not None
        assert rows.shape[1] == 160
        assert len(rows) <= MAX_RANK
        torch.testing.assert_close(gram(rows), gram(all_rows), atol=2e-3, rtol=0.1)


def test_an_update_of_zero_has_none() -> None:
    assert row_space(LayerUpdate(random(4, 20), torch.zeros(30, 4))) is None
    assert row_space(LayerUpdate(torch.zeros(4, 20), random(30, 4))) is None


def test_layers_of_the_width_alone_are_read(tmp_path: Path) -> None:
    wide = KEYS.replace("down_blocks.0", "down_blocks.1")
    names = (KEYS, wide, QUERIES, SELF)
    path = save_lora(tmp_path / "a.safetensors", [random(2, 128), random(2, 64), random(2, 128), random(2, 128)], names)
    (rows,) = read_keys_and_values(LoraFile.open(path), 128)
    assert rows.shape == (2, 128)


@pytest.mark.parametrize(
    ("name", "scale", "found"), [(QUERIES, 1.0, "none"), (KEYS, 0.0, "1 whose updates are all zero")]
)
def test_files_without_words(tmp_path: Path, name: str, scale: float, found: str) -> None:
    path = save_lora(tmp_path / "a.safetensors", [scale * random(2, 128)], (name,))
    with pytest.raises(NoWords) as error:
        read_keys_and_values(LoraFile.open(path), 128)
    assert error.value.reason == NoWordsReason.LAYERS
    message = str(error.value)
    assert message.startswith(f"{path}: expected updates of keys or values") and "\n" not in message
    assert f"found {found};" in message
    copy = pickle.loads(pickle.dumps(error.value))
    assert (str(copy), copy.reason) == (message, NoWordsReason.LAYERS)


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), 1e20])
def test_weights_that_cannot_be_used(tmp_path: Path, weight: float) -> None:
    rows = random(2, 128)
    rows[0, 0] = weight
    path = save_lora(tmp_path / "a.safetensors", [rows], (KEYS,))
    with pytest.raises(FileCorrupt, match="expected finite weights"):
        read_keys_and_values(LoraFile.open(path), 128)
