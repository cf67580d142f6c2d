"""Translation of cloneofsimo's names of modules: their positions in the order in which diffusers 0.11 registered them.

Source: ``lora_diffusion/lora.py`` (_find_modules_v2), ``models/unet_2d_condition.py`` and ``models/attention.py`` of
diffusers 0.11 (which registered the middle block last, and the feed-forward part between the attentions), and
``CLIPAttention`` of transformers.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from loradex.retrieval.errors import FileUnsupported

TargetClasses = tuple[str, str]  # JSON lists of class names, for the U-Net and for the text encoder
PROJECTIONS: Final = ("to_q", "to_k", "to_v", "to_out.0")
CLIP_PROJECTIONS: Final = ("k_proj", "v_proj", "q_proj", "out_proj")
TRANSFORMERS: Final = (
    *(f"down_blocks.{block}.attentions.{i}" for block in (0, 1, 2) for i in (0, 1)),
    *(f"up_blocks.{block}.attentions.{i}" for block in (1, 2, 3) for i in (0, 1, 2)),
    "mid_block.attentions.0",
)
CLIP_LAYERS: Final = 32  # more than any CLIP has


def unet_modules(feed_forward: bool) -> list[str]:
    """The linear layers in the transformers of SD 1's and 2's U-Net, in order, with or without the feed-forward one."""
    modules = [
        *(f"attn1.{projection}" for projection in PROJECTIONS),
        *(["ff.net.0.proj"] if feed_forward else []),
        *(f"attn2.{projection}" for projection in PROJECTIONS),
    ]
    return [f"unet.{transformer}.transformer_blocks.0.{name}" for transformer in TRANSFORMERS for name in modules]


def text_encoder_modules() -> list[str]:
    """The linear layers of the attention of CLIP's text encoder, in order."""
    return [
        f"text_encoder.text_model.encoder.layers.{layer}.self_attn.{projection}"
        for layer in range(CLIP_LAYERS)
        for projection in CLIP_PROJECTIONS
    ]


def target_classes(metadata: Mapping[str, str]) -> TargetClasses:
    """The classes of the numbered modules, as the metadata list them."""
    return metadata.get("unet", ""), metadata.get("text_encoder", "")


def name_positions(modules: Collection[str], targets: TargetClasses) -> dict[str, str]:
    """The dotted path of each ``unet:<position>`` and ``text_encoder:<position>``.

    Raises:
        FileUnsupported: the LoRA was trained on modules whose order is not known.
    """
    counts = {model: sum(module.startswith(f"{model}:") for module in modules) for model in ("unet", "text_encoder")}
    unet_classes, text_classes = map(parse_names, targets)
    orders = {
        "unet": next((order for order in map(unet_modules, (True, False)) if len(order) == counts["unet"]), []),
        "text_encoder": text_encoder_modules(),
    }
    known_classes = unet_classes <= {"CrossAttention", "Attention", "GEGLU"} and text_classes <= {"CLIPAttention"}
    paths = {f"{model}:{i}": path for model, order in orders.items() for i, path in enumerate(order[: counts[model]])}
    if not known_classes or set(paths) != set(modules):
        found = f"{counts['unet']} and {counts['text_encoder']} modules of {ascii(', '.join(sorted(unet_classes)) or 'unknown classes')}"
        raise FileUnsupported(
            f"expected the attention (and GEGLU) modules of Stable Diffusion 1 or 2 in order, found {found[:120]}; convert it first"
        )
    return paths


def parse_names(text: str) -> set[Any]:
    """The names in a JSON list; empty if it is not valid."""
    try:
        names = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return set()
    return {name for name in names if isinstance(name, str)} if isinstance(names, list) else set()
