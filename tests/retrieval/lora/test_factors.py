"""Factors against the dense formulas of LyCORIS (``functional/{locon,loha,lokr}.py``), for any shapes and ranks."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileUnsupported
from loradex.retrieval.lora.factors import ALGORITHMS, MAX_RANK
from loradex.retrieval.lora.formats import Format

Parts = dict[str, Tensor]
side = st.integers(1, 7)
thorough = settings(deadline=None, max_examples=60)
kernel = st.sampled_from([(), (1, 1), (3, 3), (1, 2, 2)])


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def check(format: Format, parts: Parts, dense: Tensor, rank: int) -> None:
    """The factors multiply to the dense update, and have the size that was measured from the shapes."""
    algorithm = ALGORITHMS[format]
    size = algorithm.measure("here", {role: tuple(part.shape) for role, part in parts.items()})
    down, up = algorithm.to_factors(parts)
    assert down.dtype == up.dtype == torch.float32
    assert (size.out, size.width, size.rank) == (len(up), down.shape[1], len(down)) == (*dense.flatten(1).shape, rank)
    torch.testing.assert_close((up @ down).double(), dense.flatten(1), atol=2e-4, rtol=1e-4)


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
        ALGORITHMS[Format.PEFT].to_factors(parts)
        for parts in ({"down": down, "up": up}, {"down": torch.linalg.solve(basis, down), "up": up @ basis})
    )
    torch.testing.assert_close(first[1] @ first[0], second[1] @ second[0], atol=1e-5, rtol=1e-4)


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
        (Format.FULL, {"diff": (MAX_RANK + 1, MAX_RANK + 1)}),
        (Format.LOHA, {"w1_a": (5000, 80), "w1_b": (80, 5000), "w2_a": (5000, 80), "w2_b": (80, 5000)}),
        (Format.LOKR, {"w1": (2**20, 1), "w2": (2**20, 1)}),
    ],
)
def test_too_large_factors_are_refused(format: Format, shapes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(FileUnsupported, match=str(MAX_RANK)):
        ALGORITHMS[format].measure("here", shapes)
