"""cloneofsimo's files name modules by their position: the order in which diffusers 0.11 registered them.

Source: ``lora_diffusion/lora.py`` (_find_modules_v2), ``models/unet_2d_condition.py`` and ``models/attention.py`` of diffusers 0.11
(the middle block was registered last, and the feed-forward part between both attentions), and ``CLIPAttention`` of transformers.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final

from loradex.retrieval.errors import FileUnsupported

ATTENTION: Final = ("to_q", "to_k", "to_v", "to_out.0")
CLIP_ATTENTION: Final = ("k_proj", "v_proj", "q_proj", "out_proj")
BLOCKS: Final = (
    *(f"down_blocks.{block}.attentions.{i}" for block in (0, 1, 2) for i in (0, 1)),
    *(f"up_blocks.{block}.attentions.{i}" for block in (1, 2, 3) for i in (0, 1, 2)),
    "mid_block.attentions.0",
)
Targets = tuple[str, str]  # JSON lists of classes, for the U-Net and for the text encoder
CLIP_LAYERS: Final = 32  # more than any CLIP has


def unet_order(feed_forward: bool) -> list[str]:
    """The linear layers of SD 1's and 2's U-Net, in the order of the trainer."""
    inner = [
        *(f"attn1.{half}" for half in ATTENTION),
        *(["ff.net.0.proj"] if feed_forward else []),
        *(f"attn2.{half}" for half in ATTENTION),
    ]
    return [f"unet.{block}.transformer_blocks.0.{name}" for block in BLOCKS for name in inner]


def text_order() -> list[str]:
    """The linear layers of the attention of CLIP's text encoder."""
    return [
        f"text_encoder.text_model.encoder.layers.{layer}.self_attn.{half}"
        for layer in range(CLIP_LAYERS)
        for half in CLIP_ATTENTION
    ]


def targets_of(metadata: Mapping[str, str]) -> Targets:
    """What the metadata say of the modules that were counted."""
    return metadata.get("unet", ""), metadata.get("text_encoder", "")


def name_positions(modules: Collection[str], targets: Targets) -> dict[str, str]:
    """The dotted path of each ``unet:<position>`` and ``text_encoder:<position>``.

    Raises:
        FileUnsupported: the file was trained on modules whose order is not known.
    """
    counts = {model: sum(module.startswith(f"{model}:") for module in modules) for model in ("unet", "text_encoder")}
    unet, text = map(classes, targets)
    orders = {
        "unet": next((order for order in (unet_order(True), unet_order(False)) if len(order) == counts["unet"]), []),
        "text_encoder": text_order(),
    }
    known = unet <= {"CrossAttention", "Attention", "GEGLU"} and text <= {"CLIPAttention"}
    named = {f"{model}:{i}": path for model, order in orders.items() for i, path in enumerate(order[: counts[model]])}
    if not known or set(named) != set(modules):
        found = f"{counts['unet']} and {counts['text_encoder']} modules of {ascii(', '.join(sorted(unet)) or 'unknown classes')}"
        raise FileUnsupported(
            f"expected the attention (and GEGLU) modules of Stable Diffusion 1 or 2 in order, found {found[:120]}; convert it first"
        )
    return named


def classes(text: str) -> set[Any]:
    """The names in a JSON list."""
    try:
        found = json.loads(text or "[]")
    except (ValueError, RecursionError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()
