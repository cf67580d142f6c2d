"""Checkpoints of the official codes, for one layer each.

ProbeX: github.com/eliahuhorwitz/ProbeX. MVProbe: github.com/AI-hew-math/MVProbe.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, ProbeNet, View

# names of the official codes' tensors -> names in ``ProbeNet``
PROBEX: Final = {
    "probes.weight": "layers.0.views.0.probes",
    "shared_probe_proj.weight": "layers.0.views.0.projection",
    "per_probe_encoders.weight": "layers.0.encoder.weight",
    "per_probe_encoders.bias": "layers.0.encoder.bias",
}
PROJECTIONS: Final = {View.XU: "row", View.XXTU: "row2", View.XTU: "col", View.XTXU: "col2"}
MVPROBE: Final = (
    {f"probes_{view}.weight": f"layers.0.views.{i}.probes" for i, view in enumerate(ALL_VIEWS)}
    | {
        f"shared_probe_proj_{PROJECTIONS[view]}.weight": f"layers.0.views.{i}.projection"
        for i, view in enumerate(ALL_VIEWS)
    }
    | {"concat_all4_encoder.weight": "layers.0.encoder.weight", "concat_all4_encoder.bias": "layers.0.encoder.bias"}
)
TEXT: Final = {"regression_head.weight": "text_projection.weight", "regression_head.bias": "text_projection.bias"}


def load_official_checkpoint(path: Path, layer: str) -> ProbeNet:
    """Read a zero-shot checkpoint (safetensors) of either official code, trained on one layer.

    Raises:
        CheckpointError: the file is missing, damaged, or has other tensors.
    """
    try:
        return from_official(load_file(path), layer)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: expected a state dict in safetensors, found none: {error}; convert pickles where you trust them"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


def from_official(state: Mapping[str, Tensor], layer: str) -> ProbeNet:
    """Create the net of a state dict of either official code.

    Raises:
        CheckpointError: the tensors are those of neither code, or their shapes do not fit together.
    """
    codes: tuple[tuple[dict[str, str], tuple[View, ...]], ...] = (
        (PROBEX | TEXT, (View.XU,)),
        (MVPROBE | TEXT, ALL_VIEWS),
    )
    names, views = next((code for code in codes if state.keys() == code[0].keys()), ({}, ()))
    if not views:
        raise CheckpointError(
            f"expected the tensors of ProbeX's or MVProbe's zero-shot model, found {', '.join(sorted(state)[:4])}"
        )
    net_state = {name: state[official_name].float() for official_name, name in names.items()}
    probes, projection = net_state["layers.0.views.0.probes"], net_state["layers.0.views.0.projection"]
    text, encoder = net_state["text_projection.weight"], net_state["layers.0.encoder.weight"]
    config = ProbeConfig(
        (layer,), views, probes.shape[1], projection.shape[0], encoder.shape[0], standardise=len(views) > 1
    )
    net = ProbeNet({layer: (projection.shape[1], probes.shape[0])}, text.shape[1], config)
    try:
        net.load_state_dict(net_state)
    except RuntimeError as error:
        raise CheckpointError(
            f"expected shapes that fit together, found others: {str(error).splitlines()[-1].strip()[:150]}"
        ) from None
    return net.eval()
