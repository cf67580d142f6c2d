"""Names of tensors -> which module they belong to, and which part of its update they are.

Sources of the endings: diffusers ``utils/state_dict_utils.py``, peft ``utils/save_and_load.py``, kohya ``networks/lora.py``,
LyCORIS ``modules/*.py`` and cloneofsimo ``lora_diffusion/lora.py``.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final


class Format(StrEnum):
    """How a trainer writes a weight update."""

    DIFFUSERS = "diffusers"  # unet.<layer>.lora.down.weight, as Model-J
    ATTN_PROCESSOR = "diffusers-attn-processor"  # <block>.processor.to_q_lora.down.weight
    PEFT = "peft"  # <layer>.lora_A[.adapter].weight
    KOHYA = "kohya"  # lora_unet_<layer>.lora_down.weight; OneTrainer, LoCon and DyLoRA end alike
    CLONEOFSIMO = "cloneofsimo"  # unet:<position>:down
    LOHA = "loha"
    LOKR = "lokr"
    GLORA = "glora"
    FULL = "full"  # <layer>.diff


@dataclass(frozen=True, slots=True)
class Part:
    """What one tensor is: a part of a module's update."""

    module: str  # as the file names it, without the ending
    role: str  # down, up, mid, alpha, w1_a, ..., or what is not read: magnitude, bias, norm, ...
    format: Format | None = None
    adapter: str = ""  # PEFT's name of the adapter


# ending: role, format, and what of the ending stays with the module's name
ENDINGS: Final = {
    ".lora.down.weight": ("down", Format.DIFFUSERS, ""),
    ".lora.up.weight": ("up", Format.DIFFUSERS, ""),
    ".lora_linear_layer.down.weight": ("down", Format.DIFFUSERS, ""),
    ".lora_linear_layer.up.weight": ("up", Format.DIFFUSERS, ""),
    "_lora.down.weight": ("down", Format.ATTN_PROCESSOR, ""),
    "_lora.up.weight": ("up", Format.ATTN_PROCESSOR, ""),
    "_lora1.down.weight": ("down", Format.ATTN_PROCESSOR, "1"),  # XLabs: the picture's half of a Flux block
    "_lora1.up.weight": ("up", Format.ATTN_PROCESSOR, "1"),
    "_lora2.down.weight": ("down", Format.ATTN_PROCESSOR, "2"),  # and the text's
    "_lora2.up.weight": ("up", Format.ATTN_PROCESSOR, "2"),
    "lora_down.weight": ("down", Format.KOHYA, ""),
    "lora_up.weight": ("up", Format.KOHYA, ""),
    "lora_mid.weight": ("mid", Format.KOHYA, ""),
    "lora_down.bias": ("bias", None, ""),
    "lora_up.bias": ("bias", None, ""),
    "alpha": ("alpha", None, ""),
    "dora_scale": ("magnitude", None, ""),
    **{f".hada_w{side}_{half}": (f"w{side}_{half}", Format.LOHA, "") for side in "12" for half in "ab"},
    **{f".hada_t{side}": (f"t{side}", Format.LOHA, "") for side in "12"},
    **{f".lokr_w{side}": (f"w{side}", Format.LOKR, "") for side in "12"},
    **{f".lokr_w{side}_{half}": (f"w{side}_{half}", Format.LOKR, "") for side in "12" for half in "ab"},
    ".lokr_t2": ("t2", Format.LOKR, ""),
    ".b1.weight": ("b1", Format.GLORA, ""),
    ".b2.weight": ("b2", Format.GLORA, ""),
    ".bm.weight": ("bm", Format.GLORA, ""),
    ".a1.weight": ("a1", Format.GLORA, ""),
    ".a2.weight": ("a2", Format.GLORA, ""),
    ".diff": ("diff", Format.FULL, ""),
    ".diff_b": ("bias", None, ""),
    ".w_norm": ("norm", None, ""),
    ".b_norm": ("norm", None, ""),
    ".bias_indices": ("bias", None, ""),
    ".bias_values": ("bias", None, ""),
    ".bias_size": ("bias", None, ""),
    ".set_weight": ("replacement", None, ""),
    ".reshape_weight": ("replacement", None, ""),
    ".oft_blocks": ("rotation (OFT or BOFT)", None, ""),
    ".oft_R.weight": ("rotation (OFT or BOFT)", None, ""),
    ".oft_diag": ("rotation (OFT or BOFT)", None, ""),
    ".rescale": ("rotation (OFT or BOFT)", None, ""),
    ".on_input": ("multiplier (IA3)", None, ""),
    ".ia3_l": ("multiplier (IA3)", None, ""),
    ".q_layer.weight": ("singular values (T-LoRA)", None, ""),
    ".p_layer.weight": ("singular values (T-LoRA)", None, ""),
    ".lambda_layer": ("singular values (T-LoRA)", None, ""),
}
BY_LAST_WORD: Final[dict[str, list[str]]] = {}
for _ending in sorted(ENDINGS, key=len, reverse=True):
    BY_LAST_WORD.setdefault(_ending.rpartition(".")[2].rpartition("_")[2], []).append(_ending)
PEFT_ROLES: Final = {
    "lora_A": "down",
    "lora_B": "up",
    "lora_magnitude_vector": "magnitude",
    "lora_embedding_A": "embedding",
    "lora_embedding_B": "embedding",
}
CACHED_NAMES: Final = 2**14  # files of one folder share most of theirs
LONGEST_NAME: Final = 400
EMBEDDINGS: Final = ("bundle_emb.", "emb_params", "<")


@lru_cache(CACHED_NAMES)
def split_name(name: str) -> Part | None:
    """What the tensor is by its name alone, or None."""
    if len(name) > LONGEST_NAME:
        return None
    part = split_peft(name)
    if part is not None:
        return part
    if ":" in name:
        return split_positional(name)
    if name.startswith(EMBEDDINGS):
        return Part(name, "embedding")
    for ending in BY_LAST_WORD.get(name.rpartition(".")[2].rpartition("_")[2], ()):
        if name.endswith(ending):
            role, form, kept = ENDINGS[ending]
            module = name.removesuffix(ending)
            if ending[0] in "._" or module.endswith((".", "_")):
                return Part(module.rstrip("._") + kept, role, form)
    return None


def split_peft(name: str) -> Part | None:
    """PEFT: ``<module>.lora_A[.<adapter>][.weight]``."""
    pieces = name.split(".")
    for place in range(len(pieces) - 1, max(len(pieces) - 4, 0), -1):
        role = PEFT_ROLES.get(pieces[place])
        if role is None:
            continue
        rest = pieces[place + 1 :]
        if rest and rest[-1] in ("weight", "bias"):
            role = "bias" if rest.pop() == "bias" else role
        return Part(".".join(pieces[:place]), role, Format.PEFT, rest[0] if rest else "") if len(rest) < 2 else None
    return None


def split_positional(name: str) -> Part | None:
    """cloneofsimo: ``<model>:<position>:<half>``."""
    module, _, role = name.rpartition(":")
    return Part(module, role, Format.CLONEOFSIMO) if role in ("down", "up") else None
