"""The orders in which cloneofsimo's trainer counts the modules of a U-Net or text encoder.

A model's modules are counted as they were registered. The shapes of some follow from those of others, by which a file
shows which order it has.

Sources: ``models/unet_2d_condition.py`` and ``models/attention.py`` of diffusers 0.11 (which registered the
feed-forward part between the attentions) and of later versions (behind them; all register the middle block last),
``CLIPEncoderLayer`` of transformers, ``lora_diffusion/lora.py`` (``UNET_EXTENDED_TARGET_REPLACE``, with kernels).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Final

Side = tuple[int, str]  # a side of a shape: a factor and the name of a width
UNET: Final = "unet"
TEXT_ENCODER: Final = "text_encoder"
PROJECTIONS: Final = ("to_q", "to_k", "to_v", "to_out.0")
CLIP_PROJECTIONS: Final = ("k_proj", "v_proj", "q_proj", "out_proj")
BLOCKS: Final = (*(f"down_blocks.{i}" for i in range(4)), *(f"up_blocks.{i}" for i in range(4)), "mid_block")
MAX_CLIP_LAYERS: Final = 32  # more than any CLIP has


@dataclass(frozen=True, slots=True)
class CountedModule:
    """A module at its position; widths of one name are equal in a file.

    Attributes:
        path: in the pipeline of diffusers.
        out: the side of its output.
        width: the side of its input, of a kernel with its extent.
    """

    path: str
    out: Side
    width: Side

    def fits(self, shape: tuple[int, int], widths: dict[str, int]) -> bool:
        """Whether the module can have the shape (out, in) beside those ``widths``; adds its own to them."""
        for (factor, name), side in zip((self.out, self.width), shape, strict=True):
            if side % factor or widths.setdefault(name, side // factor) != side // factor:
                return False
        return True


@cache
def known_orders(model: str) -> dict[int, list[list[CountedModule]]]:
    """All known orders of a model's modules, by their number of modules."""
    if model == TEXT_ENCODER:
        kinds = ((True, False), (True, True), (False, True))
        orders = [list(clip_modules(n, *kind)) for kind in kinds for n in range(1, MAX_CLIP_LAYERS + 1)]
    else:
        attention, with_feed_forward = ("attn1", "attn2"), (("ff",), ("attn1", "ff", "attn2"), ("attn1", "attn2", "ff"))
        kinds_of_unet = [((), 0), (attention, 0), *product(with_feed_forward, (1, 2))]
        orders = [list(unet_modules(*kind, resnets)) for kind in kinds_of_unet for resnets in (False, True)]
    by_length: dict[int, list[list[CountedModule]]] = {}
    for order in orders:
        by_length.setdefault(len(order), []).append(order)
    return by_length


def unet_modules(order: Sequence[str], feed_forward: int = 1, resnets: bool = False) -> Iterator[CountedModule]:
    """The modules of SD 1's and 2's U-Net, in order.

    Args:
        order: of the parts within a transformer block: attn1, attn2 and ff.
        feed_forward: how many layers of the feed-forward part: 1 in GEGLU, 2 in FeedForward.
        resnets: whether those of ``ResnetBlock2D`` are counted too.
    """
    for block in BLOCKS:
        side, _, number = block.partition(".")
        level = 3 if side == "mid_block" else int(number) if side == "down_blocks" else 3 - int(number)
        level_width = f"width {min(level, 2)}"  # the two deepest levels have the same
        depth = {"down_blocks": 2, "up_blocks": 3, "mid_block": 1}[side]
        for i in range(depth if level < 3 or side == "mid_block" else 0):
            prefix = f"unet.{block}.attentions.{i}.transformer_blocks.0."
            for part in order:
                yield from transformer_modules(prefix, part, level_width, feed_forward)
        for i in range(depth + (side == "mid_block") if resnets else 0):
            has_shortcut = side == "up_blocks" or (side == "down_blocks" and i == 0 and level in (1, 2))
            yield from resnet_modules(f"unet.{block}.resnets.{i}.", level_width, has_shortcut)


def transformer_modules(prefix: str, part: str, width: str, feed_forward: int) -> Iterator[CountedModule]:
    """The modules of one part of a transformer block."""
    if part == "ff":
        modules = (
            CountedModule(f"{prefix}ff.net.0.proj", (8, width), (1, width)),
            CountedModule(f"{prefix}ff.net.2", (1, width), (4, width)),
        )
        yield from modules[:feed_forward]
        return
    for name in PROJECTIONS:
        of_context = part == "attn2" and name in ("to_k", "to_v")
        yield CountedModule(f"{prefix}{part}.{name}", (1, width), (1, "context" if of_context else width))


def resnet_modules(prefix: str, width: str, has_shortcut: bool) -> Iterator[CountedModule]:
    """The modules of a resnet, whose input may be joined with a skip connection."""
    yield CountedModule(f"{prefix}conv1", (1, width), (9, prefix))
    yield CountedModule(f"{prefix}time_emb_proj", (1, width), (1, "time"))
    yield CountedModule(f"{prefix}conv2", (1, width), (9, width))
    if has_shortcut:
        yield CountedModule(f"{prefix}conv_shortcut", (1, width), (1, prefix))


def clip_modules(layers: int, attention: bool = True, mlp: bool = False) -> Iterator[CountedModule]:
    """The modules of CLIP's text encoder, in order: of its attention, of its feed-forward part, or of both."""
    for layer in range(layers):
        prefix = f"text_encoder.text_model.encoder.layers.{layer}."
        for name in CLIP_PROJECTIONS if attention else ():
            yield CountedModule(f"{prefix}self_attn.{name}", (1, "width"), (1, "width"))
        if mlp:
            yield CountedModule(f"{prefix}mlp.fc1", (4, "width"), (1, "width"))
            yield CountedModule(f"{prefix}mlp.fc2", (1, "width"), (4, "width"))
