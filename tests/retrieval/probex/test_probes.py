"""Learned probes, compared with the official formulas on dense updates."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.official_checkpoints import from_official, load_official_checkpoint
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, ProbeNet, View
from tests.retrieval.probex import dense
from tests.retrieval.probex.dense import close, some_updates

OUT, IN, PROBES, PROJECTION, REPRESENTATION, TEXT = 40, 24, 6, 5, 9, 11
SHAPES = {
    "probex": {
        "probes.weight": (IN, PROBES),
        "shared_probe_proj.weight": (PROJECTION, OUT),
        "per_probe_encoders.weight": (REPRESENTATION, PROBES * PROJECTION),
        "per_probe_encoders.bias": (REPRESENTATION,),
    },
    "mvprobe": {
        "probes_xu.weight": (IN, PROBES),
        "probes_xxtu.weight": (OUT, PROBES),
        "probes_xtu.weight": (OUT, PROBES),
        "probes_xtxu.weight": (IN, PROBES),
        "shared_probe_proj_row.weight": (PROJECTION, OUT),
        "shared_probe_proj_row2.weight": (PROJECTION, OUT),
        "shared_probe_proj_col.weight": (PROJECTION, IN),
        "shared_probe_proj_col2.weight": (PROJECTION, IN),
        "concat_all4_encoder.weight": (REPRESENTATION, 4 * PROBES * PROJECTION),
        "concat_all4_encoder.bias": (REPRESENTATION,),
    },
}
HEAD = {"regression_head.weight": (REPRESENTATION, TEXT), "regression_head.bias": (REPRESENTATION,)}


def official(code: str) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {name: torch.randn(shape) for name, shape in (SHAPES[code] | HEAD).items()}


@pytest.mark.parametrize("code", SHAPES)
def test_official_weights_give_the_official_representation(code: str) -> None:
    state, updates = official(code), some_updates()
    expected = getattr(dense, code)(
        {name: tensor.double() for name, tensor in state.items()},
        torch.stack([dense.dense(update) for update in updates]),
    )
    net = from_official(state, "layer")
    close(net.represent({"layer": Factors.stack(updates)}), expected)
    texts = torch.randn(4, TEXT)
    head = texts.double() @ state["regression_head.weight"].double().T + state["regression_head.bias"].double()
    close(net.encode_text(texts), head / head.norm(dim=1, keepdim=True))


def test_an_official_checkpoint_is_read_from_a_file(tmp_path: Path) -> None:
    save_file(official("mvprobe"), tmp_path / "mv.safetensors")
    models = {"layer": Factors.stack(some_updates())}
    close(
        load_official_checkpoint(tmp_path / "mv.safetensors", "layer").encode(models),
        from_official(official("mvprobe"), "layer").encode(models),
    )


def test_other_state_dicts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the tensors of ProbeX's"):
        from_official({"weight": torch.ones(1)}, "layer")
    with pytest.raises(CheckpointError, match="fit together"):
        from_official(official("probex") | {"regression_head.bias": torch.ones(3)}, "layer")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match="x.safetensors"):
        load_official_checkpoint(tmp_path / "x.safetensors", "layer")


@pytest.mark.parametrize("view", ALL_VIEWS)
@pytest.mark.parametrize("standardise", [False, True])
def test_each_view_equals_its_dense_form(view: View, standardise: bool) -> None:
    torch.manual_seed(4)
    updates = some_updates()
    net = ProbeNet(
        {"layer": (OUT, IN)}, TEXT, ProbeConfig(("layer",), (view,), PROBES, PROJECTION, REPRESENTATION, standardise)
    )
    probe, encoder = net.layers[0].views[0], net.layers[0].encoder
    x = torch.stack([dense.dense(update) for update in updates])
    xt, u = x.transpose(1, 2), probe.probes.double()
    responses = {
        View.XU: lambda: x @ u,
        View.XXTU: lambda: x @ xt @ u,
        View.XTU: lambda: xt @ u,
        View.XTXU: lambda: xt @ x @ u,
    }[view]()
    responses = dense.standardised(responses) if standardise else responses
    features = torch.einsum("pu,nuk->nkp", probe.projection.double(), responses).relu().flatten(1)
    close(
        net.represent({"layer": Factors.stack(updates)}), features @ encoder.weight.double().T + encoder.bias.double()
    )


def test_layers_add_up() -> None:
    torch.manual_seed(5)
    shapes = {"one": (OUT, IN), "two": (OUT, IN)}
    net = ProbeNet(
        shapes, TEXT, ProbeConfig(("one", "two"), ALL_VIEWS, PROBES, PROJECTION, REPRESENTATION, True)
    ).eval()
    models = {"one": Factors.stack(some_updates()), "two": Factors.stack(some_updates(seed=1))}
    close(net.represent(models), net.layers[0](models["one"]) + net.layers[1](models["two"]))
