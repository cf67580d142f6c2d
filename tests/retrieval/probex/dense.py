"""The views, probes and encoders of ProbeX and MVProbe on dense updates, in double precision."""

import torch
from torch import Tensor

from loradex.retrieval.lora import LayerUpdate


def some_updates(
    ranks: tuple[int, ...] = (2, 4, 8), seed: int = 0, out: int = 40, width: int = 24
) -> list[LayerUpdate]:
    torch.manual_seed(seed)
    return [LayerUpdate(torch.randn(rank, width), torch.randn(out, rank)) for rank in ranks]


def dense(update: LayerUpdate) -> Tensor:
    return update.up.double() @ update.down.double()


def close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert (a.double() - b.double()).norm() <= 1e-5 * b.double().norm()


def standardised(responses: Tensor) -> Tensor:
    flat = responses.flatten(1)
    return (responses - flat.mean(1)[:, None, None]) / (flat.std(1)[:, None, None] + 1e-8)


def probex(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """relu(V X U), through one linear encoder."""
    projected = torch.einsum("pu,nuk->nkp", state["shared_probe_proj.weight"], x @ state["probes.weight"])
    return projected.relu().flatten(1) @ state["per_probe_encoders.weight"].T + state["per_probe_encoders.bias"]


def mvprobe(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Four standardised views, each with its projection, through one linear encoder."""
    xt = x.transpose(1, 2)
    responses = {
        ("xu", "row"): x @ state["probes_xu.weight"],
        ("xxtu", "row2"): x @ xt @ state["probes_xxtu.weight"],
        ("xtu", "col"): xt @ state["probes_xtu.weight"],
        ("xtxu", "col2"): xt @ x @ state["probes_xtxu.weight"],
    }
    features = [
        torch.einsum("pu,nuk->nkp", state[f"shared_probe_proj_{side}.weight"], standardised(view)).relu().flatten(1)
        for (_, side), view in responses.items()
    ]
    return torch.cat(features, 1) @ state["concat_all4_encoder.weight"].T + state["concat_all4_encoder.bias"]
