"""The formats of LoRA files, recognised by the endings of tensor names.

A tensor name is split into the module that the tensor belongs to, its role in the module's update, and the format.
Sources of the endings: diffusers ``utils/state_dict_utils.py``, peft ``utils/save_and_load.py``, kohya
``networks/lora.py``, LyCORIS ``modules/*.py`` and cloneofsimo ``lora_diffusion/lora.py``.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from loradex.retrieval.lora.quantised import is_quantiser_word


class Format(StrEnum):
    """The way in which a trainer writes weight updates."""

    DIFFUSERS = "diffusers"  # unet.<layer>.lora.down.weight, as Model-J
    ATTN_PROCESSOR = "diffusers-attn-processor"  # <block>.processor.to_q_lora.down.weight
    PEFT = "peft"  # <layer>.lora_A[.<adapter>].weight
    KOHYA = "kohya"  # lora_unet_<layer>.lora_down.weight; OneTrainer, LoCon and DyLoRA have the same endings
    CLONEOFSIMO = "cloneofsimo"  # unet:<position>:down
    LOHA = "loha"
    LOKR = "lokr"
    GLORA = "glora"
    FULL = "full"  # <layer>.diff


@dataclass(frozen=True, slots=True)
class TensorName:
    """A tensor name, split into its parts.

    Attributes:
        module: the beginning of the name, which names the module.
        role: in the update of the module: down, up, mid, alpha, w1_a ...; magnitude, bias, norm ... are not read.
        format: None if the ending occurs in several formats, or belongs to a part that is not read.
        adapter: PEFT's name of the adapter, or "".
    """

    module: str
    role: str
    format: Format | None = None
    adapter: str = ""


ROTATION: Final = "rotation (OFT or BOFT)"
MULTIPLIER: Final = "multiplier (IA3)"
SINGULAR_VALUES: Final = "singular values (T-LoRA)"
# ending: (role, format, suffix that the module's name keeps)
ENDINGS: Final = {
    ".lora.down.weight": ("down", Format.DIFFUSERS, ""),
    ".lora.up.weight": ("up", Format.DIFFUSERS, ""),
    ".lora_linear_layer.down.weight": ("down", Format.DIFFUSERS, ""),
    ".lora_linear_layer.up.weight": ("up", Format.DIFFUSERS, ""),
    "_lora.down.weight": ("down", Format.ATTN_PROCESSOR, ""),
    "_lora.up.weight": ("up", Format.ATTN_PROCESSOR, ""),
    "_lora1.down.weight": ("down", Format.ATTN_PROCESSOR, "1"),  # XLabs: the image stream of a Flux block
    "_lora1.up.weight": ("up", Format.ATTN_PROCESSOR, "1"),
    "_lora2.down.weight": ("down", Format.ATTN_PROCESSOR, "2"),  # XLabs: the text stream
    "_lora2.up.weight": ("up", Format.ATTN_PROCESSOR, "2"),
    "lora_down.weight": ("down", Format.KOHYA, ""),
    "lora_up.weight": ("up", Format.KOHYA, ""),
    "lora_mid.weight": ("mid", Format.KOHYA, ""),
    "lora_down.bias": ("bias", None, ""),
    "lora_up.bias": ("bias", None, ""),
    "alpha": ("alpha", None, ""),
    "dora_scale": ("magnitude", None, ""),
    **{f".hada_w{half}_{factor}": (f"w{half}_{factor}", Format.LOHA, "") for half in "12" for factor in "ab"},
    **{f".hada_t{half}": (f"t{half}", Format.LOHA, "") for half in "12"},
    **{f".lokr_w{operand}": (f"w{operand}", Format.LOKR, "") for operand in "12"},
    **{f".lokr_w{operand}_{factor}": (f"w{operand}_{factor}", Format.LOKR, "") for operand in "12" for factor in "ab"},
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
    ".oft_blocks": (ROTATION, None, ""),
    ".oft_diag": (ROTATION, None, ""),
    ".rescale": (ROTATION, None, ""),
    ".on_input": (MULTIPLIER, None, ""),
    ".q_layer.weight": (SINGULAR_VALUES, None, ""),
    ".p_layer.weight": (SINGULAR_VALUES, None, ""),
    ".lambda_layer": (SINGULAR_VALUES, None, ""),
}
ENDINGS_BY_LAST_WORD: Final[dict[str, list[str]]] = {}  # the longest first
for _ending in sorted(ENDINGS, key=len, reverse=True):
    ENDINGS_BY_LAST_WORD.setdefault(_ending.rpartition(".")[2].rpartition("_")[2], []).append(_ending)
PEFT_ROLES: Final = {
    "lora_A": "down",
    "lora_B": "up",
    "lora_magnitude_vector": "magnitude",
    "lora_embedding_A": "embedding",
    "lora_embedding_B": "embedding",
    **dict.fromkeys(("oft_R", "oft_r", "oft_s", "boft_R", "boft_s"), ROTATION),  # OneTrainer has the first, too
    "ia3_l": MULTIPLIER,
}
PEFT_PARTS: Final = frozenset({"down", "up", "magnitude", "bias", "embedding"})  # the other roles are no LoRA's
CACHED_NAMES: Final = 2**14  # the files of a folder have most names in common
MAX_NAME_LENGTH: Final = 400
EMBEDDING_PREFIXES: Final = ("bundle_emb.", "emb_params", "<")


@lru_cache(CACHED_NAMES)
def split_tensor_name(name: str) -> TensorName | None:
    """Split the name of a tensor; None if no format has such names."""
    if len(name) > MAX_NAME_LENGTH:
        return None
    peft = split_peft_name(name)
    if peft is not None:
        return peft
    if ":" in name:
        return split_cloneofsimo_name(name)
    if name.startswith(EMBEDDING_PREFIXES):
        return TensorName(name, "embedding")
    for ending in ENDINGS_BY_LAST_WORD.get(name.rpartition(".")[2].rpartition("_")[2], ()):
        if name.endswith(ending):
            role, format, suffix = ENDINGS[ending]
            module = name.removesuffix(ending)
            if ending[0] in "._" or module.endswith((".", "_")):
                return TensorName(module.rstrip("._") + suffix, role, format)
    return None


def split_peft_name(name: str) -> TensorName | None:
    """Split ``<module>.lora_A[.<adapter>][.weight]``; None for other names."""
    words = name.split(".")
    for position in range(len(words) - 1, max(len(words) - 4, 0), -1):
        role = PEFT_ROLES.get(words[position])
        if role is None:
            continue
        rest = words[position + 1 :]
        if rest and rest[-1] in ("weight", "bias"):
            role = "bias" if rest.pop() == "bias" else role
        if len(rest) > 1 or (rest and is_quantiser_word(rest[0])):
            return None
        format = Format.PEFT if role in PEFT_PARTS else None
        return TensorName(".".join(words[:position]), role, format, rest[0] if rest else "")
    return None


def split_cloneofsimo_name(name: str) -> TensorName | None:
    """Split ``<model>:<position>:down`` or ``:up``; None for other names."""
    module, _, role = name.rpartition(":")
    return TensorName(module, role, Format.CLONEOFSIMO) if role in ("down", "up") else None
