"""Fingerprints, compared with the same computation on dense updates."""

from collections.abc import Mapping

import pytest
import torch
from torch.testing import assert_close

from loradex.retrieval.fingerprint import SIZE, Fingerprint, hashes
from loradex.retrieval.lora.update import LayerUpdate, Update
from tests.retrieval.lora.products import some_products

SHAPES = {"a.to_q": (40, 24), "a.to_v": (40, 24), "b.to_out.0": (64, 48)}


def random_lora(seed: int, rank: int = 4) -> dict[str, LayerUpdate]:
    generator = torch.Generator().manual_seed(seed)
    return {
        layer: LayerUpdate(torch.randn(rank, i, generator=generator), torch.randn(o, rank, generator=generator))
        for layer, (o, i) in SHAPES.items()
    }


def dense(lora: dict[str, LayerUpdate]) -> dict[str, torch.Tensor]:
    return {layer: update.up @ update.down for layer, update in lora.items()}


def sketch(lora: Mapping[str, Update]) -> torch.Tensor:
    return torch.from_numpy(Fingerprint.of(lora.items()).sketch)


def dense_sketch(lora: dict[str, LayerUpdate]) -> torch.Tensor:
    """The definition: entry (o, i) of each dW, with its sign, is added to bucket (h_out(o) + h_in(i)) mod SIZE."""
    total = torch.zeros(SIZE, dtype=torch.float64)
    for layer, matrix in dense(lora).items():
        (rows, row_signs), (columns, column_signs) = (
            hashes(layer, side, n) for side, n in zip(("out", "in"), matrix.shape, strict=True)
        )
        signed = matrix.double() * row_signs[:, None] * column_signs
        total.index_add_(0, ((rows[:, None] + columns) % SIZE).flatten(), signed.flatten())
    return (total / total.norm()).float()


def cosine(one: dict[str, LayerUpdate], two: dict[str, LayerUpdate]) -> float:
    flat = [torch.cat([matrix.flatten() for matrix in dense(lora).values()]) for lora in (one, two)]
    return float(torch.nn.functional.cosine_similarity(*flat, dim=0))


def test_the_sketch_equals_its_definition() -> None:
    lora = random_lora(0)
    assert_close(sketch(lora), dense_sketch(lora), atol=1e-5, rtol=1e-5)
    assert Fingerprint.of(lora.items()).norm == pytest.approx(
        float(torch.cat([matrix.flatten() for matrix in dense(lora).values()]).norm()), rel=1e-5
    )


def test_another_factorisation_scale_order_or_padding_changes_nothing() -> None:
    lora = random_lora(1)
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(9)) + 3 * torch.eye(4)
    again = {
        layer: LayerUpdate(torch.linalg.solve(mixing, u.down), 2.5 * u.up @ mixing)
        for layer, u in reversed(lora.items())
    }
    padded = {
        layer: LayerUpdate(
            torch.cat([u.down, torch.ones(2, u.shape[1])]), torch.cat([u.up, torch.zeros(u.shape[0], 2)], 1)
        )
        for layer, u in again.items()
    }
    assert_close(sketch(padded), sketch(lora), atol=1e-5, rtol=1e-4)
    assert Fingerprint.of(padded.items()).norm == pytest.approx(2.5 * Fingerprint.of(lora.items()).norm, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_the_cosine_is_estimated(share: float) -> None:
    errors = []
    for seed in range(20):
        one, other = random_lora(100 + seed), random_lora(200 + seed)
        mixed = {
            layer: LayerUpdate(
                torch.cat([one[layer].down, other[layer].down]),
                torch.cat([share * one[layer].up, (1 - share) * other[layer].up], 1),
            )
            for layer in SHAPES
        }
        errors.append(Fingerprint.of(one.items()).cosine(Fingerprint.of(mixed.items())) - cosine(one, mixed))
    spread = torch.tensor(errors)
    assert spread.abs().max() < 5 * SIZE**-0.5
    assert abs(float(spread.mean())) < 3 * SIZE**-0.5 / 20**0.5 + 1e-3


def test_zero_and_missing_updates_give_zeros() -> None:
    lora = {"a.to_q": LayerUpdate(torch.randn(4, 24), torch.zeros(40, 4))}
    for fingerprint in (
        Fingerprint.of(lora.items()),
        Fingerprint.of([]),
        Fingerprint.of([("a.to_q", LayerUpdate(torch.randn(4, 0), torch.randn(40, 4)))]),
        Fingerprint.from_bytes(Fingerprint.of([]).to_bytes()),
    ):
        assert not fingerprint.sketch.any()
        assert fingerprint.norm == 0


def test_a_stored_fingerprint_keeps_its_cosines() -> None:
    one, other = (Fingerprint.of(random_lora(seed).items()) for seed in (3, 4))
    stored = Fingerprint.from_bytes(one.to_bytes())
    assert len(one.to_bytes()) == SIZE + 8
    assert stored.norm == one.norm
    assert stored.cosine(one) > 0.9999
    assert abs(stored.cosine(other) - one.cosine(other)) < 2e-3
    with pytest.raises(ValueError, match="expected 1032 bytes, found 3"):
        Fingerprint.from_bytes(b"abc")


@pytest.mark.parametrize(("out", "width"), [(40, 24), (24, 40), (1300, 16)])
def test_products_that_are_not_multiplied_out_have_the_fingerprint_of_their_factors(out: int, width: int) -> None:
    some = some_products(out, width)
    lora = {f"{number}.to_q": LayerUpdate(matrix, torch.eye(len(matrix))) for number, (_, matrix) in enumerate(some)}
    for (layer, factors), (update, _) in zip(lora.items(), some, strict=True):
        assert_close(sketch({layer: update}), sketch({layer: factors}), atol=1e-5, rtol=1e-4)
    mixed = {layer: some[number][0] if number % 2 else update for number, (layer, update) in enumerate(lora.items())}
    assert_close(sketch(mixed), dense_sketch(lora), atol=1e-5, rtol=1e-4)
    assert Fingerprint.of(mixed.items()).norm == pytest.approx(Fingerprint.of(lora.items()).norm, rel=1e-5)
