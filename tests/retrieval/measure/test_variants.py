"""Changes of files, compared with the same changes of dense updates."""

import torch

from loradex.retrieval.measure.variants import VARIANTS
from loradex.retrieval.probex.batched_factors import Factors

UP, VALUE = (
    "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_v",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q",
)


def some_models() -> dict[str, Factors]:
    torch.manual_seed(0)
    return {layer: Factors(torch.randn(3, 4, 12), torch.randn(3, 10, 4)) for layer in (UP, VALUE)}


def dense(models: dict[str, Factors]) -> torch.Tensor:
    return torch.stack([factors.up @ factors.down for factors in models.values()])


def test_other_factors_of_the_same_updates_change_nothing() -> None:
    models = some_models()
    for name in ("as it is", "factors turned"):
        torch.testing.assert_close(dense(VARIANTS[name](models)), dense(models))


def test_strengths_and_precisions() -> None:
    models = some_models()
    torch.testing.assert_close(dense(VARIANTS["half the strength"](models)), dense(models) / 2)
    torch.testing.assert_close(dense(VARIANTS["four times the strength"](models)), 4 * dense(models))
    for name, most in (("bfloat16", 2e-2), ("float8", 2e-1)):
        change = (dense(VARIANTS[name](models)) - dense(models)).norm() / dense(models).norm()
        assert 0 < change < most


def test_lower_ranks_are_the_nearest_ones() -> None:
    models = some_models()
    for rank in (1, 2):
        u, s, v = torch.linalg.svd(dense(models), full_matrices=False)
        torch.testing.assert_close(
            dense(VARIANTS[f"cut to rank {rank}"](models)),
            u[..., :rank] * s[..., None, :rank] @ v[..., :rank, :],
            atol=1e-4,
            rtol=1e-4,
        )


def test_layers_are_selected_by_name() -> None:
    models = some_models()
    assert list(VARIANTS["cross-attention alone"](models)) == [VALUE]
    assert list(VARIANTS["values and outputs alone"](models)) == [UP]
    assert list(VARIANTS["up blocks alone"](models)) == [UP]
