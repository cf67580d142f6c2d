"""Which layers of a denoiser are grown."""

from typing import Final

from torch import nn

from loradex.retrieval.errors import QueryError

# the ends of the names, in diffusers, of the linear layers of attention, those of double streams included
ATTENTION: Final = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)


def linear_layers(module: nn.Module, ends: tuple[str, ...] = ATTENTION) -> dict[str, nn.Linear]:
    """The linear layers of a denoiser whose names end so, by name.

    Raises:
        QueryError: there are none.
    """
    linear = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear)}
    chosen = {
        name: layer for name, layer in linear.items() if any(name == end or name.endswith(f".{end}") for end in ends)
    }
    if not chosen:
        some = ", ".join(sorted(linear)[:3]) or "none"
        raise QueryError(
            f"--layers: expected linear layers of {type(module).__name__} with names that end in {', '.join(ends)}, found none; its first are {some}"
        )
    return chosen
