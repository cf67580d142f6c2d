"""Look-alikes made from known LoRAs."""

import pytest
import torch

from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lookalikes import Lookalikes, Relation
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


def times(updates: Updates, factor: float) -> Updates:
    return {layer: LayerUpdate(update.down, factor * update.up) for layer, update in updates.items()}


def plus(one: Updates, other: Updates) -> Updates:
    return {
        n: LayerUpdate(torch.cat([one[n].down, other[n].down]), torch.cat([one[n].up, other[n].up], 1)) for n in one
    }


def printed(updates: Updates) -> Fingerprint:
    return Fingerprint.of(updates.items())


LORAS = [lora(seed) for seed in range(6)]
KNOWN = Lookalikes([printed(updates) for updates in LORAS])


def test_a_resave_a_rescaling_and_a_stranger() -> None:
    halves = {
        layer: LayerUpdate(update.down.half().float(), update.up.half().float()) for layer, update in LORAS[2].items()
    }
    (found,) = KNOWN.of(printed(halves))
    assert (found.index, found.relation) == (2, Relation.SAME)
    assert found.cosine > 0.999
    (found,) = KNOWN.of(printed(times(LORAS[2], 0.5)))
    assert (found.index, found.relation) == (2, Relation.RESCALED)
    assert found.strength == pytest.approx(2, rel=1e-3)
    assert KNOWN.of(printed(lora(99))) == []


def test_a_merge_names_its_parts_and_weights() -> None:
    mixed = printed(plus(times(LORAS[1], 0.8), times(LORAS[4], 0.5)))
    assert {found.index: found.relation for found in KNOWN.of(mixed)} == {1: Relation.RELATED, 4: Relation.RELATED}
    merge = KNOWN.merge_of(mixed)
    assert merge is not None
    assert merge.weights == {1: pytest.approx(0.8, abs=0.08), 4: pytest.approx(0.5, abs=0.08)}
    assert merge.explained > 0.95


def test_what_is_no_merge() -> None:
    assert KNOWN.merge_of(printed(LORAS[3])) is None  # itself
    assert KNOWN.merge_of(printed(lora(99))) is None  # of nothing that is known
    assert KNOWN.merge_of(printed(plus(LORAS[0], lora(99)))) is None  # half of it is unknown
    chain = Lookalikes([printed(LORAS[0]), printed(plus(LORAS[0], times(lora(7), 0.6)))])
    assert (
        chain.merge_of(printed(plus(LORAS[0], times(lora(7), 0.3)))) is None
    )  # between two checkpoints, which are no strangers
    assert Lookalikes([]).merge_of(printed(LORAS[0])) is None


def test_pairs_are_all_pairs() -> None:
    mixed = plus(LORAS[0], LORAS[1])
    known = Lookalikes([printed(updates) for updates in (*LORAS, mixed, times(LORAS[5], 2))])
    found = {(first, second.index): second.relation for first, second in known.pairs()}
    assert found == {(0, 6): Relation.RELATED, (1, 6): Relation.RELATED, (5, 7): Relation.RESCALED}
    assert list(Lookalikes([]).pairs()) == []


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Lookalikes([printed(updates) for updates in (*LORAS, *LORAS)])
    whole = [(first, second.index) for first, second in known.pairs()]
    monkeypatch.setattr("loradex.retrieval.lookalikes.BLOCK", 5)
    assert [(first, second.index) for first, second in known.pairs()] == whole == [(i, i + 6) for i in range(6)]
