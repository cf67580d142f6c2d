"""Look-alikes made from known LoRAs."""

import pytest
import torch

from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import FingerprintIndex, Relation
from loradex.retrieval.lora.update import LayerUpdate

Updates = dict[str, LayerUpdate]


def lora(seed: int, rank: int = 4) -> Updates:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"block.{i}.to_q": LayerUpdate(
            torch.randn(rank, 48, generator=generator), torch.randn(64, rank, generator=generator)
        )
        for i in range(12)
    }


def scaled(updates: Updates, factor: float) -> Updates:
    return {layer: LayerUpdate(update.down, factor * update.up) for layer, update in updates.items()}


def merged(one: Updates, other: Updates) -> Updates:
    return {
        n: LayerUpdate(torch.cat([one[n].down, other[n].down]), torch.cat([one[n].up, other[n].up], 1)) for n in one
    }


def fingerprint(updates: Updates) -> Fingerprint:
    return Fingerprint.of(updates.items())


LORAS = [lora(seed) for seed in range(6)]
INDEX = FingerprintIndex([fingerprint(updates) for updates in LORAS])


def test_a_resave_and_a_rescaling_are_found_and_a_stranger_is_not() -> None:
    halves = {
        layer: LayerUpdate(update.down.half().float(), update.up.half().float()) for layer, update in LORAS[2].items()
    }
    (match,) = INDEX.find(fingerprint(halves))
    assert (match.index, match.relation) == (2, Relation.SAME)
    assert match.cosine > 0.999
    (match,) = INDEX.find(fingerprint(scaled(LORAS[2], 0.5)))
    assert (match.index, match.relation) == (2, Relation.RESCALED)
    assert match.strength == pytest.approx(2, rel=1e-3)
    assert INDEX.find(fingerprint(lora(99))) == []


def test_a_merge_names_its_parts_and_weights() -> None:
    mixed = fingerprint(merged(scaled(LORAS[1], 0.8), scaled(LORAS[4], 0.5)))
    assert {match.index: match.relation for match in INDEX.find(mixed)} == {1: Relation.RELATED, 4: Relation.RELATED}
    merge = INDEX.find_merge(mixed)
    assert merge is not None
    assert merge.weights == {1: pytest.approx(0.8, abs=0.08), 4: pytest.approx(0.5, abs=0.08)}
    assert merge.explained > 0.95


@pytest.mark.parametrize("factor", [-1.0, -0.3])
def test_a_negated_copy_is_related_to_its_source(factor: float) -> None:
    negated = fingerprint(scaled(LORAS[2], factor))
    (match,) = INDEX.find(negated)
    assert (match.index, match.relation) == (2, Relation.NEGATED)
    assert (match.cosine, match.strength) == (pytest.approx(-1, abs=1e-3), pytest.approx(-1 / factor, rel=1e-3))
    assert INDEX.find_merge(negated) is None
    ((first, other),) = FingerprintIndex([fingerprint(LORAS[2]), negated]).pairs()
    assert (first, other.relation) == (0, Relation.NEGATED)


def test_a_merge_may_take_a_part_away() -> None:
    difference = fingerprint(merged(scaled(LORAS[1], 0.8), scaled(LORAS[4], -0.5)))
    merge = INDEX.find_merge(difference)
    assert merge is not None
    assert merge.weights == {1: pytest.approx(0.8, abs=0.08), 4: pytest.approx(-0.5, abs=0.08)}


def test_loras_that_are_no_merge() -> None:
    assert INDEX.find_merge(fingerprint(LORAS[3])) is None  # itself
    assert INDEX.find_merge(fingerprint(lora(99))) is None  # of no LoRA in the index
    assert INDEX.find_merge(fingerprint(merged(LORAS[0], lora(99)))) is None  # half of it is not in the index
    chain = FingerprintIndex([fingerprint(LORAS[0]), fingerprint(merged(LORAS[0], scaled(lora(7), 0.6)))])
    assert (
        chain.find_merge(fingerprint(merged(LORAS[0], scaled(lora(7), 0.3)))) is None
    )  # between two checkpoints, which are related
    assert FingerprintIndex([]).find_merge(fingerprint(LORAS[0])) is None


def test_pairs_are_all_pairs() -> None:
    mixed = merged(LORAS[0], LORAS[1])
    index = FingerprintIndex([fingerprint(updates) for updates in (*LORAS, mixed, scaled(LORAS[5], 2))])
    relations = {(first, second.index): second.relation for first, second in index.pairs()}
    assert relations == {(0, 6): Relation.RELATED, (1, 6): Relation.RELATED, (5, 7): Relation.RESCALED}
    assert list(FingerprintIndex([]).pairs()) == []


def test_pairs_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    index = FingerprintIndex([fingerprint(updates) for updates in (*LORAS, *LORAS)])
    in_one_block = [(first, second.index) for first, second in index.pairs()]
    monkeypatch.setattr("loradex.retrieval.lookalikes.BLOCK_ROWS", 5)
    assert [(first, second.index) for first, second in index.pairs()] == in_one_block == [(i, i + 6) for i in range(6)]
