"""A file's names of modules -> diffusers' names of layers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from loradex.retrieval.lora.layer_names.diffusion_transformers import (
    ANIMA,
    HIDREAM,
    KREA2,
    LTX,
    LUMINA2,
    QWEN,
    SD3,
    WAN,
    Z_IMAGE,
)
from loradex.retrieval.lora.layer_names.flux import CHROMA, FLUX1, FLUX2, HUNYUAN_VIDEO
from loradex.retrieval.lora.layer_names.rules import CACHED_NAMES, Rows, Tree, Words, whole, words
from loradex.retrieval.lora.layer_names.text_encoders import TEXT
from loradex.retrieval.lora.layer_names.unet import UNET

TREES: Final = (UNET, FLUX1, CHROMA, FLUX2, HUNYUAN_VIDEO, SD3, QWEN, WAN, Z_IMAGE, LUMINA2, LTX, ANIMA, KREA2, HIDREAM)
DIFFUSION: Final = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "conditional_transformer.",
    "lora_unet_",
    "lora_transformer_",
    "lora_prior_unet_",
    "lycoris_",
    "unet.",
    "unet_",
    "transformer.",
)
TWICE: Final = ("transformer_transformer_blocks_", "transformer_single_transformer_blocks_")
ENCODERS: Final = {
    "text_encoder.": 1,
    "text_encoder_2.": 2,
    "text_encoder_3.": 3,
    "text_encoder_2_": 2,
    "text_encoder_3_": 3,
    "text_encoder_": 1,
    "lora_te_": 1,
    "lora_te1_": 1,
    "lora_te2_": 2,
    "lora_te3_": 3,
    "clip_l.": 1,
    "clip_g.": 2,
    "t5.": 3,
    "text_encoders.clip_l.transformer.": 1,
    "text_encoders.clip_g.transformer.": 2,
    "text_encoders.t5xxl.transformer.": 3,
}
BARE_CLIP: Final = ("text_model.", "text_model_encoder_")
T5: Final = "encoder.block."
MOST_PREFIXES: Final = 6
CACHED_FILES: Final = 4


@dataclass(frozen=True, slots=True)
class Stem:
    """A module without its prefixes.

    Attributes:
        path: the rest of its name, with the file's dots or underscores.
        encoder: which text encoder it belongs to, or 0 for the diffusion model.
    """

    path: str
    encoder: int


@dataclass(frozen=True, slots=True)
class Naming:
    """The layers of a file.

    Attributes:
        trees: the architectures whose names fit best, the likeliest first; none for text encoders alone.
        layers: for each module its layers, each of some rows.
        strange: modules whose name no rule knows, and which keep it.
    """

    trees: list[str] = field(default_factory=list)
    layers: dict[str, list[tuple[str, Rows]]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)


def name_layers(shapes: Mapping[str, tuple[int, int]]) -> Naming:
    """The layers of modules given by their name and (out, in); the same modules come back in file after file of a folder."""
    return named(tuple(shapes.items()))


@lru_cache(CACHED_FILES)
def named(modules: tuple[tuple[str, tuple[int, int]], ...]) -> Naming:
    """The layers of modules."""
    shapes = dict(modules)
    stems = {module: stem_of(module) for module in shapes}
    cut = {module: words(stem.path) for module, stem in stems.items()}
    trees = fitting({module: cut[module] for module, stem in stems.items() if not stem.encoder}, shapes)
    naming = Naming([tree.name for tree in trees])
    for module, stem in stems.items():
        tree = TEXT if stem.encoder else trees[0] if trees else None
        found = tree.find(cut[module], shapes[module]) if tree else []
        if not found:
            found = [(stem.path, rows) for rows in whole(*shapes[module])]
            naming.strange.append(module)
        naming.layers[module] = [(place(stem, layer, naming.trees), rows) for layer, rows in found]
    return naming


@lru_cache(CACHED_NAMES)
def stem_of(module: str) -> Stem:
    """The module without what trainers put before its path."""
    path, encoder = module.replace(".processor.", "."), 0
    for _ in range(MOST_PREFIXES):
        if path.startswith(BARE_CLIP):
            return Stem(path, encoder or 1)
        prefix = next((p for p in (*ENCODERS, *DIFFUSION) if path.startswith(p)), None)
        if prefix is None:
            break
        encoder = ENCODERS.get(prefix, encoder)
        path = path.removeprefix(prefix).lstrip("_")
    return Stem(path.removeprefix("transformer_") if path.startswith(TWICE) else path, encoder)


def place(stem: Stem, layer: str, trees: list[str]) -> str:
    """The layer's name in a pipeline of diffusers; Flux calls T5 its second text encoder."""
    if not stem.encoder:
        return layer
    number = 2 if layer.startswith(T5) and trees[:1] in (["flux1"], ["chroma"]) else stem.encoder
    return f"text_encoder.{layer}" if number == 1 else f"text_encoder_{number}.{layer}"


def fitting(modules: Mapping[str, Words], shapes: Mapping[str, tuple[int, int]]) -> list[Tree]:
    """The trees that know the most modules, and of those the ones whose widths and numbers of blocks agree best."""
    scores = {}
    for tree in TREES:
        found = {module: tree.find(cut, shapes[module]) for module, cut in modules.items() if cut[0] in tree.index}
        known = {module: layers[0][0] for module, layers in found.items() if layers}
        within = sum(fits(tree, layer, shapes[module]) for module, layer in known.items())
        scores[tree.name] = (len(known), within, complete(tree, known.values()))
    best = max(scores.values())
    return [tree for tree in TREES if scores[tree.name] == best] if best[0] else []


def fits(tree: Tree, layer: str, shape: tuple[int, int]) -> bool:
    """Whether the tree has that many blocks of that width."""
    kind, number = block(layer)
    return number < tree.blocks.get(kind, number + 1) and (not tree.widths or not tree.widths.isdisjoint(shape))


def complete(tree: Tree, layers: Iterable[str]) -> int:
    """How many kinds of blocks end where the tree's do."""
    last: dict[str, int] = {}
    for kind, number in map(block, layers):
        last[kind] = max(number, last.get(kind, -1))
    return sum(last.get(kind) == count - 1 for kind, count in tree.blocks.items())


def block(layer: str) -> tuple[str, int]:
    """The kind of block that a layer is in, and its number; -1 where there is none."""
    kind, _, rest = layer.partition(".")
    number = rest.partition(".")[0]
    return kind, int(number) if number.isdecimal() else -1
