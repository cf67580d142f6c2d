"""The family of the base model that a LoRA was trained on, told from the names and shapes of its layers.

A family fits if one of its sizes has every layer of the file in the file's shape: ``UNETS`` lists those of Stable
Diffusion, ``layer_names.sizes`` those of transformers, ``encoders`` their text encoders. Of the transformers that fit,
those count whose last blocks are the file's last; if that does not tell them apart, all are named. Metadata
(``family_names``) only choose among the families that fit.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from loradex.retrieval.lora.encoders import TEXT_ENCODERS, encoders_fit, find_encoder_families
from loradex.retrieval.lora.family_names import family_in_metadata
from loradex.retrieval.lora.layer_names.prefixes import SECOND_TRANSFORMER
from loradex.retrieval.lora.layer_names.sizes import OTHER_SIZES, SIZES, LayerSet, ModelSize, Shape
from loradex.retrieval.lora.problems import printable

UNKNOWN: Final = "unknown"
MAX_STRANGE_SHARE: Final = 0.25  # of the layers of a file that a family may lack; it is then in doubt


@dataclass(frozen=True, slots=True)
class UNet:
    """A U-Net of Stable Diffusion's kind, by the config of its ``UNet2DConditionModel`` in diffusers.

    Attributes:
        cross_attention_dim: width of the text states.
        block_out_channels: widths of the levels, from the input down.
        transformer_layers: how many transformer blocks each attention of a level has; 0 if it has no attention.
        mid_transformer_layers: likewise for the middle block.
        layers_per_block: how many resnets each level has on the way down; on the way up it is one more.
    """

    cross_attention_dim: int
    block_out_channels: tuple[int, ...]
    transformer_layers: tuple[int, ...]
    mid_transformer_layers: int
    layers_per_block: int = 2

    def has_layer(self, layer: str, shape: Shape) -> bool:
        """Whether the U-Net has the layer in the shape (out, in)."""
        widths = self.block_out_channels
        name = layer.split(".")
        if name[0] in ("time_embedding", "add_embedding", "conv_in", "conv_out"):
            return any(side % widths[0] == 0 for side in shape)
        if name[0] == "mid_block":
            width, depth, inner = widths[-1], self.mid_transformer_layers, name[1:]
        elif name[0] in ("down_blocks", "up_blocks") and int(name[1]) < len(widths):
            level = int(name[1]) if name[0] == "down_blocks" else len(widths) - 1 - int(name[1])
            width, depth, inner = widths[level], self.transformer_layers[level], name[2:]
            if int(inner[1]) >= self.layers_per_block + (name[0] == "up_blocks"):
                return False
        else:
            return False
        if inner[0] != "attentions":
            return shape[0] == width
        if inner[2] == "transformer_blocks" and int(inner[3]) >= depth:
            return False
        return depth > 0 and shape == self.attention_shape(".".join(inner[4:]), width)

    def attention_shape(self, module: str, width: int) -> Shape:
        """Shape (out, in) of a module of a transformer block, or of the projections around the blocks ("")."""
        if module in ("attn2.to_k", "attn2.to_v"):
            return width, self.cross_attention_dim
        return {"ff.net.0.proj": (8 * width, width), "ff.net.2": (width, 4 * width)}.get(module, (width, width))


UNETS: Final = {
    "sd1": UNet(768, (320, 640, 1280, 1280), (1, 1, 1, 0), 1),
    "sd2": UNet(1024, (320, 640, 1280, 1280), (1, 1, 1, 0), 1),
    "sdxl": UNet(2048, (320, 640, 1280), (0, 2, 10), 10),
    "sdxl-refiner": UNet(1280, (384, 768, 1536, 1536), (0, 4, 4, 0), 4),
    "mini-a": UNet(128, (96, 144), (1, 1), 1, layers_per_block=1),
    "mini-b": UNet(128, (64, 112), (1, 1), 1, layers_per_block=1),
}


@dataclass(frozen=True, slots=True)
class FamilyFit:
    """How the families fit the layers of a file.

    Attributes:
        families: those that fit, the likeliest first; ``UNKNOWN`` before them stands for a model of no family.
        doubts: what speaks against the first, or why there is none, one short line each.
    """

    families: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def find_families(
    shapes: Mapping[str, Shape], architectures: Iterable[str] = ("unet",), modules: Iterable[str] = ()
) -> list[str]:
    """Find the families that fit some layers, the likeliest first; arguments as for ``fit_families``."""
    return fit_families(shapes, architectures, modules).families


def fit_families(
    shapes: Mapping[str, Shape],
    architectures: Iterable[str] = ("unet",),
    modules: Iterable[str] = (),
    untranslated: Collection[str] = (),
) -> FamilyFit:
    """Find the families that fit some layers.

    Args:
        shapes: (out, in) of the layers by their names in diffusers.
        architectures: those that the layers' names fit, the likeliest first.
        modules: the names of their modules in the file, for text encoders alone.
        untranslated: the layers that keep the file's own names.
    """
    encoder_layers = {layer: shape for layer, shape in shapes.items() if layer.startswith("text_encoder")}
    model_layers = {
        layer.removeprefix(SECOND_TRANSFORMER): shape for layer, shape in shapes.items() if layer not in encoder_layers
    }
    known_encoder_layers = {layer: shape for layer, shape in encoder_layers.items() if layer not in untranslated}
    if not model_layers:
        return FamilyFit(find_encoder_families(known_encoder_layers, modules))
    names = list(architectures)
    fit = fit_unets(model_layers, untranslated) if names[:1] == ["unet"] else fit_transformers(model_layers, names)
    families = [name for name in fit.families if name not in TEXT_ENCODERS or encoders_fit(name, known_encoder_layers)]
    return FamilyFit(families or fit.families, fit.doubts)


def fit_unets(layers: Mapping[str, Shape], untranslated: Collection[str]) -> FamilyFit:
    """Find the U-Nets that have some layers."""
    strange = [layer for layer in layers if layer in untranslated]
    if len(strange) > MAX_STRANGE_SHARE * len(layers):
        return FamilyFit()
    known = {layer: shape for layer, shape in layers.items() if layer not in strange} if strange else layers
    families = [name for name, unet in UNETS.items() if all(unet.has_layer(*item) for item in known.items())]
    if not families:
        return FamilyFit(
            doubts=["the layers have the names of Stable Diffusion's U-Nets, but are in none of their sizes"]
        )
    return FamilyFit(families)  # the layers that keep their names are a problem of the file already


def fit_transformers(layers: Mapping[str, Shape], architectures: list[str]) -> FamilyFit:
    """Find the transformers that have some layers: those first whose names the file has."""
    found = LayerSet.of(layers.items())
    named = {name: SIZES[name] for name in architectures if name in SIZES}
    fitting, missing = fitting_sizes(named | OTHER_SIZES, found)
    if not fitting:
        fitting, missing = fitting_sizes(SIZES, found)
    if not fitting:
        return FamilyFit(doubts=why_none(found, named))
    fit = likeliest(fitting, found)
    if not missing or fit.families[0] == UNKNOWN:
        return fit
    return FamilyFit(fit.families, [*fit.doubts, lacks(fit.families[0], len(missing), missing[0])])


def fitting_sizes(sizes: Mapping[str, tuple[ModelSize, ...]], layers: LayerSet) -> tuple[list[ModelSize], list[str]]:
    """The sizes that contradict no layer and lack the fewest, and the layers that they lack."""
    by_count: dict[int, list[ModelSize]] = {}
    for size in (size for group in sizes.values() for size in group):
        count = layers.count(size.strangers(layers))
        if count <= MAX_STRANGE_SHARE * layers.size and size.contradiction(layers) is None:
            by_count.setdefault(count, []).append(size)
    if not by_count:
        return [], []
    fitting = by_count[min(by_count)]
    return fitting, layers.named(fitting[0].strangers(layers))


def why_none(layers: LayerSet, sizes: Mapping[str, tuple[ModelSize, ...]]) -> list[str]:
    """Why no transformer fits, if one has the names of most layers."""
    for name, group in sizes.items():
        for size in group:
            layer = size.contradiction(layers)
            if layer is not None and layers.count(size.strangers(layers)) <= MAX_STRANGE_SHARE * layers.size:
                return [f"the layers have the names of {name}, but {printable(layer)} is in none of its sizes"]
    return []


def likeliest(sizes: list[ModelSize], layers: LayerSet) -> FamilyFit:
    """Of the sizes that fit, the families of those with the most kinds of blocks that end where the file's do.

    A model of no family goes first if the file has just its blocks, and no family ends there; it is in doubt beside a
    single family that does not end there.
    """
    full: dict[str, int] = {}
    for size in sizes:
        full[size.name] = max(full.get(size.name, 0), size.count_full_kinds(layers))
    most = max((count for name, count in full.items() if name in SIZES), default=-1)
    families = [name for name, count in full.items() if name in SIZES and count == most]
    exact = [size.name for size in sizes if size.name in OTHER_SIZES and size.has_just_these_blocks(layers)]
    if not families or (most == 0 and exact):
        others = exact or [name for name in full if name in OTHER_SIZES]
        also = f", or {' or '.join(families)}" if families else ""
        doubt = f"these layers are those of {' or '.join(others)}, which is of no family that is known{also}"
        return FamilyFit([UNKNOWN, *families], [doubt])
    others = [name for name in full if name in OTHER_SIZES]
    if most == 0 and len(families) == 1 and others:
        return FamilyFit(families, [f"these layers fit {families[0]}, and {' and '.join(others)} as well"])
    return FamilyFit(families)


def lacks(family: str, count: int, layer: str) -> str:
    """The doubt about a family that lacks some layers."""
    return f"the family {family} is in doubt: it lacks {count} of the layers, such as {printable(layer)}"


def choose_family(families: list[str], metadata: Mapping[str, str]) -> str:
    """Choose among the families that fit: the one that the metadata name, else the likeliest, else ``unknown``."""
    named = family_in_metadata(metadata)
    return named if named in families else families[0] if families else UNKNOWN


def family_doubts(fit: FamilyFit, metadata: Mapping[str, str]) -> list[str]:
    """The doubts about the family of a file, one short line each, after its metadata were read."""
    named, families = family_in_metadata(metadata), [name for name in fit.families if name != UNKNOWN]
    if named is not None and named in families:
        return []
    lines = list(fit.doubts)
    if len(families) > 1 and fit.families[0] != UNKNOWN:
        lines.append(f"these layers fit the families {', '.join(families)}; the first is assumed")
    if named is not None and families:
        lines.append(f"the metadata name the family {named}, the layers fit {families[0]}")
    elif named is not None and (named in SIZES or named in UNETS):
        lines.append(f"the metadata name the family {named}, whose layers these are not")
    return lines
