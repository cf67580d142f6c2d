"""Factors against the dense formulas of LyCORIS (``functional/{locon,loha,lokr}.py``), for any shapes and ranks."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora import LayerUpdate, Update
from loradex.retrieval.lora.factors import ALGORITHMS, MAX_RANK
from loradex.retrieval.lora.factors.kronecker import KroneckerUpdate
from loradex.retrieval.lora.factors.rowwise import HadamardUpdate, MatrixUpdate
from loradex.retrieval.lora.formats import Format
from loradex.retrieval.lora.update import select_rows
from tests.retrieval.lora.products import NO_RANKS, some_products

Parts = dict[str, Tensor]
side = st.integers(1, 7)
thorough = settings(deadline=None, max_examples=60)
kernel = st.sampled_from([(), (1, 1), (3, 3), (1, 2, 2)])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def check(format: Format, parts: Parts, dense: Tensor, rank: int) -> None:
    """The update equals the dense one in all that is read of it, and has the size that was measured."""
    algorithm = ALGORITHMS[format]
    size = algorithm.measure("here", {role: tuple(part.shape) for role, part in parts.items()})
    update = algorithm.to_update(parts)
    assert update.down.dtype == update.up.dtype == torch.float32
    assert (size.out, size.width, size.rank) == (*update.shape, update.rank) == (*dense.flatten(1).shape, rank)
    check_update(update, dense.flatten(1))


def check_update(update: Update, dense: Tensor) -> None:
    """All that readers take of an update equals the same of the dense matrix (out, in)."""
    dense, close = dense.double(), partial(torch.testing.assert_close, atol=1e-3, rtol=1e-3, check_dtype=False)
    scale = max(float(dense.norm()), 1e-6)
    torch.testing.assert_close((update.up @ update.down).double(), dense, atol=2e-4, rtol=1e-4)
    right, left = torch.randn(dense.shape[1], 3), torch.randn(dense.shape[0], 3)
    close(update.times(right), dense @ right.double())
    close(update.transposed_times(left), dense.mT @ left.double())
    assert update.energy() == pytest.approx(scale**2, rel=1e-4, abs=1e-6)
    close(update.gram() / scale**2, dense @ dense.mT / scale**2)
    close(update.transposed_gram() / scale**2, dense.mT @ dense / scale**2)
    leading = update.leading(max(dense.shape))
    close(leading.up @ leading.down / scale, dense / scale)
    best = torch.linalg.svdvals(dense).square()[:5].sum()
    assert float(dense.norm()) < 1e-6 or update.leading(10).energy() >= 0.9 * float(best)


@thorough
@given(side, side, side, kernel)
def test_lora_and_locon(out: int, width: int, rank: int, kernel: tuple[int, ...]) -> None:
    down, up = normal(rank, width, *kernel), normal(out, rank, *[1] * len(kernel))
    check(Format.KOHYA, {"down": down, "up": up}, (up.flatten(1) @ down.flatten(1)).reshape(out, width, *kernel), rank)


@thorough
@given(side, side, side, side)
def test_locon_with_a_core(out: int, width: int, rank: int, inner: int) -> None:
    down, mid, up = normal(inner, width, 1, 1), normal(rank, inner, 3, 3), normal(out, rank, 1, 1)
    dense = torch.einsum("mnkl,im,nj->ijkl", mid, up[..., 0, 0], down[..., 0, 0])
    check(Format.KOHYA, {"down": down, "mid": mid, "up": up}, dense, rank)
    flat = {"down": down[..., 0, 0], "mid": mid[..., 0, 0], "up": up[..., 0, 0]}  # a core without a kernel
    check(Format.KOHYA, flat, flat["up"] @ flat["mid"] @ flat["down"], rank)


@thorough
@given(side, side, side, side, kernel)
def test_loha(out: int, width: int, rank1: int, rank2: int, kernel: tuple[int, ...]) -> None:
    parts = {
        "w1_a": normal(out, rank1),
        "w1_b": normal(rank1, width, *kernel),
        "w2_a": normal(out, rank2),
        "w2_b": normal(rank2, width, *kernel),
    }
    dense = (parts["w1_a"] @ parts["w1_b"].flatten(1)) * (parts["w2_a"] @ parts["w2_b"].flatten(1))
    check(Format.LOHA, parts, dense, min(rank1 * rank2, *dense.shape))


@thorough
@given(side, side, side)
def test_loha_with_cores(out: int, width: int, rank: int) -> None:
    parts = (
        {f"w{i}_a": normal(rank, out) for i in "12"}
        | {f"w{i}_b": normal(rank, width) for i in "12"}
        | {f"t{i}": normal(rank, rank, 3, 2) for i in "12"}
    )
    halves = [torch.einsum("ijkl,ip,jr->prkl", parts[f"t{i}"], parts[f"w{i}_a"], parts[f"w{i}_b"]) for i in "12"]
    check(Format.LOHA, parts, halves[0] * halves[1], min(rank * rank, out, width * 6))


def lokr_operand(
    number: str, rows: int, columns: int, rank: int, kernel: tuple[int, ...], way: str
) -> tuple[Parts, Tensor]:
    """An operand of LoKr, as its parts and multiplied out; ``way`` is how it is written."""
    if way == "full":
        full = normal(rows, columns, *kernel)
        return {f"w{number}": full}, full
    if way == "product":
        first, second = normal(rows, rank), normal(rank, columns, *kernel)
        return {f"w{number}_a": first, f"w{number}_b": second}, (first @ second.flatten(1)).reshape(
            rows, columns, *kernel
        )
    first, second, core = normal(rank, rows), normal(rank, columns), normal(rank, rank, *(kernel or (2, 2)))
    return {f"w{number}_a": first, f"w{number}_b": second, f"t{number}": core}, torch.einsum(
        "ij...,ip,jr->pr...", core, first, second
    )


@thorough
@given(
    side,
    side,
    side,
    side,
    side,
    kernel,
    st.sampled_from(["full", "product"]),
    st.sampled_from(["full", "product", "core"]),
)
def test_lokr(a: int, b: int, c: int, d: int, rank: int, kernel: tuple[int, ...], first: str, second: str) -> None:
    parts1, w1 = lokr_operand("1", a, b, rank, (), first)
    parts2, w2 = lokr_operand("2", c, d, rank, kernel, second)
    dense = torch.from_numpy(np.kron(w1.reshape(a, b, *[1] * (w2.dim() - 2)).numpy(), w2.numpy()))
    expected = min(rank, a, b) if first == "product" else min(a, b)
    inside = w2[0].numel()
    expected *= min(rank, c, inside) if second != "full" else min(c, inside)
    check(Format.LOKR, parts1 | parts2, dense, expected)


@thorough
@given(side, side, kernel)
def test_full_differences(out: int, width: int, kernel: tuple[int, ...]) -> None:
    diff = normal(out, width, *kernel)
    check(Format.FULL, {"diff": diff}, diff, min(out, diff[0].numel()))


@pytest.mark.parametrize("old", [False, True])
def test_the_additive_part_of_glora(old: bool) -> None:
    """New files have down in b2 and up in b1, old ones the other way round."""
    down, up = normal(2, 5), normal(6, 2)
    parts = {"a1": normal(5, 2), "a2": normal(2, 5)} | ({"b1": down, "b2": up} if old else {"b1": up, "b2": down})
    check(Format.GLORA, parts, up @ down, 2)


@thorough
@given(st.integers(1, 5), st.integers(0, 2**31))
def test_the_update_does_not_depend_on_the_basis_of_the_factors(rank: int, seed: int) -> None:
    torch.manual_seed(seed)
    down, up = normal(rank, 6), normal(7, rank)
    basis = torch.linalg.qr(normal(rank, rank))[0] * 1.5
    first, second = (
        ALGORITHMS[Format.PEFT].to_update(parts)
        for parts in ({"down": down, "up": up}, {"down": torch.linalg.solve(basis, down), "up": up @ basis})
    )
    torch.testing.assert_close(first.up @ first.down, second.up @ second.down, atol=1e-5, rtol=1e-4)


WIDE = {
    (Format.FULL): {"diff": (5120, 13_824)},
    (Format.LOHA): {"w1_a": (5120, 80), "w1_b": (80, 13_824), "w2_a": (5120, 80), "w2_b": (80, 13_824)},
    (Format.LOKR): {"w1": (16, 16), "w2": (320, 864)},
}


@pytest.mark.parametrize("format", WIDE)
def test_of_any_rank_are_layers_of_usual_sizes(format: Format) -> None:
    size = ALGORITHMS[format].measure("here", WIDE[format])
    assert (size.out, size.width, size.rank) == (5120, 13_824, 5120)


INVALID: list[tuple[Format, Callable[[], dict[str, tuple[int, ...]]]]] = [
    (Format.KOHYA, lambda: {"down": (4, 8)}),
    (Format.KOHYA, lambda: {"down": (4, 8), "up": (8, 5)}),
    (Format.KOHYA, lambda: {"down": (0, 8), "up": (8, 0)}),
    (Format.KOHYA, lambda: {"down": (4,), "up": (8, 4)}),
    (Format.KOHYA, lambda: {"down": (4, 8, 1, 1), "mid": (4, 5, 3, 3), "up": (8, 4, 1, 1)}),
    (Format.LOHA, lambda: {"w1_a": (8, 2), "w1_b": (2, 8), "w2_a": (8, 2)}),
    (Format.LOHA, lambda: {"w1_a": (8, 2), "w1_b": (2, 8), "w2_a": (8, 2), "w2_b": (2, 9)}),
    (
        Format.LOHA,
        lambda: {
            "w1_a": (2, 8),
            "w1_b": (2, 8),
            "w2_a": (2, 8),
            "w2_b": (2, 8),
            "t1": (2, 3, 3, 3),
            "t2": (2, 2, 3, 3),
        },
    ),
    (Format.LOKR, lambda: {"w1": (2, 2)}),
    (Format.LOKR, lambda: {"w1": (2, 2), "w2_a": (4, 2), "w2_b": (3, 4)}),
    (Format.LOKR, lambda: {"w1": (2, 0), "w2": (4, 4)}),
]


@pytest.mark.parametrize(("format", "shapes"), INVALID)
def test_parts_that_do_not_fit_are_refused(format: Format, shapes: Callable[[], dict[str, tuple[int, ...]]]) -> None:
    with pytest.raises(FileCorrupt, match="here: expected"):
        ALGORITHMS[format].measure("here", shapes())


@pytest.mark.parametrize(
    ("format", "shapes"),
    [
        (Format.KOHYA, {"down": (MAX_RANK + 1, 8), "up": (8, MAX_RANK + 1)}),
        (Format.KOHYA, {"down": (1, 2**21), "up": (8, 1)}),
        (Format.FULL, {"diff": (12_000, 12_000)}),
        (Format.LOHA, {"w1_a": (12_000, 80), "w1_b": (80, 12_000), "w2_a": (12_000, 80), "w2_b": (80, 12_000)}),
        (Format.LOKR, {"w1": (12, 12), "w2": (1000, 1000)}),
        (Format.LOKR, {"w1": (2**20, 1), "w2": (2**20, 1)}),
    ],
)
def test_too_large_factors_are_refused(format: Format, shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(FileUnsupported, match=str(MAX_RANK)):
        ALGORITHMS[format].measure("here", shapes)


@pytest.mark.parametrize(("out", "width"), [(40, 24), (24, 40), (200, 16)])
def test_products_that_are_not_multiplied_out(out: int, width: int) -> None:
    for update, dense in some_products(out, width):
        check_update(update, dense)
        rows = ((1, out - 5), (out - 2, out))
        check_update(update.part(rows, -2), -2 * select_rows(dense, rows))
        torch.testing.assert_close(update.part(rows, 1).part(((2, 4),), 1).times(torch.eye(width)), dense[3:5])


def test_a_lokr_with_whole_factors_stays_a_product() -> None:
    """Neither a factor of the layer's size nor the layer itself is made."""
    parts = {"w1": normal(16, 16), "w2": normal(192, 192)}
    update = ALGORITHMS[Format.LOKR].to_update(parts)
    assert isinstance(update, KroneckerUpdate)
    assert (update.shape, update.rank) == ((3072, 3072), 3072)
    assert update.energy() == pytest.approx(float(parts["w1"].square().sum() * parts["w2"].square().sum()), rel=1e-4)
    assert update.part(((0, 1024),), 1.0).shape == (1024, 3072)
    assert isinstance(ALGORITHMS[Format.LOKR].to_update(parts | {"w1": normal(2, 2), "w2": normal(8, 8)}), LayerUpdate)


@pytest.mark.parametrize(("rank", "kind"), [(4, LayerUpdate), (48, HadamardUpdate)])
def test_a_loha_of_high_rank_is_read_by_its_rows(rank: int, kind: type) -> None:
    parts = {f"w{i}_{half}": normal(*shape) for i in "12" for half, shape in (("a", (640, rank)), ("b", (rank, 640)))}
    assert isinstance(ALGORITHMS[Format.LOHA].to_update(parts), kind)


@pytest.mark.parametrize("number", [torch.nan, torch.inf, 1e30])
def test_numbers_beyond_bounds_show_in_the_largest(number: float) -> None:
    for make in (
        lambda matrix: KroneckerUpdate(matrix, torch.zeros(2, 2), NO_RANKS),
        lambda matrix: KroneckerUpdate(torch.zeros(2, 2), matrix, NO_RANKS),
        lambda matrix: HadamardUpdate((matrix, matrix), (torch.zeros(2, 2), torch.zeros(2, 2))),
        MatrixUpdate,
    ):
        assert not make(torch.tensor([[1.0, number], [1.0, 1.0]])).largest <= 1e12


def test_energies_of_large_and_small_numbers() -> None:
    for number in (1e24, 1e-24):
        assert MatrixUpdate(torch.full((3, 2), number)).energy() == pytest.approx(6 * number**2, rel=1e-5)
