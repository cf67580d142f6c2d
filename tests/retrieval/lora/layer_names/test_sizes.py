"""Sizes of transformers against diffusers' classes, and families of LoRAs for all its transformers and U-Nets."""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import diffusers
import pytest
from diffusers.models import transformers, unets
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from loradex.retrieval.lora.family import UNKNOWN, FamilyFit, choose_family, fit_families
from loradex.retrieval.lora.layer_names import translate_names
from loradex.retrieval.lora.layer_names.sizes import SIZES_FILE
from scripts.layer_sizes import MODELS, OTHERS, describe_model, shapes_of_family, weight_shapes, without_weights

Shapes = dict[str, tuple[int, int]]
DOCUMENT = json.loads(SIZES_FILE.read_text("utf-8"))
DEPTH = re.compile(r"num_.*(layers|blocks)|n_layers|depth")  # names of parameters
TEXT_LAYERS = ("num_text_layers", "num_layerwise_text_blocks")  # whose number is a width
# what classes without defaults need, or with defaults that only fit their full depth
SETTINGS: dict[str, dict[str, Any]] = {
    "EasyAnimateTransformer3DModel": {"in_channels": 16, "out_channels": 16, "patch_size": 2},
    "HiDreamImageTransformer2DModel": MODELS["hidream"][0][1] | {"llama_layers": [31] * 4},
    "HunyuanDiT2DModel": {"in_channels": 4, "patch_size": 2},
    "LatteTransformer3DModel": {
        "in_channels": 4,
        "patch_size": 2,
        "attention_head_dim": 72,
        "cross_attention_dim": 1152,
        "caption_channels": 4096,
        "norm_type": "ada_norm_single",
    },
    "LuminaNextDiT2DModel": {"num_kv_heads": 8},
    "OmniGenTransformer2DModel": {"rope_scaling": {"short_factor": [1.0] * 48, "long_factor": [1.0] * 48}},
    "WanVACETransformer3DModel": {"vace_layers": [0]},
}
NOT_BUILT = {  # parts of other models, which no LoRA is trained on alone
    "DreamLiteTransformer2DModel": "a block of DreamLiteUNetModel",
    "Transformer2DModel": "a block of U-Nets",
    "TransformerTemporalModel": "a block of video U-Nets",
    "DualTransformer2DModel": "a block of VersatileDiffusion",
    "MotionAdapter": "only the motion modules of UNetMotionModel",
}
FAMILY_BY_CLASS = {class_name: family for family, sizes in MODELS.items() for class_name, _ in sizes} | {
    # other trainings or wrappers of the same transformer
    "ChronoEditTransformer3DModel": "wan",
    "ConsisIDTransformer3DModel": "cogvideox",
    "HunyuanVideoFramepackTransformer3DModel": "hunyuan-video",
    "SanaWMLTX2RefinerTransformer3DModel": "ltx-2",
}
ATTENTION = re.compile(r".*\b(attn\d?|attention|self_attn|cross_attn)\.(to_[qkv]|[qkv]_proj|[qkv])")


def model_classes() -> Iterator[type[ModelMixin]]:
    for package in (transformers, unets):
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            for member in vars(module).values():
                if (
                    inspect.isclass(member)
                    and issubclass(member, ModelMixin)
                    and member.__module__ == module.__name__
                    and member.__name__ not in NOT_BUILT
                ):
                    yield member


CLASSES = {each.__name__: each for each in model_classes()}


def small_model(class_name: str) -> Shapes:
    """The layers of a model of two blocks of each kind, of the true width."""
    parameters = inspect.signature(CLASSES[class_name].__init__).parameters
    depths = {
        name: 2
        for name, parameter in parameters.items()
        if DEPTH.fullmatch(name)
        and name not in TEXT_LAYERS
        and type(parameter.default) is int
        and parameter.default > 2
    }
    with without_weights():
        model = CLASSES[class_name](**depths | SETTINGS.get(class_name, {}))
    modules = ((name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d))
    return {name: (m.weight.shape[0], m.weight[0].numel()) for name, m in modules}


def fit_of(shapes: Shapes) -> FamilyFit:
    names = translate_names(shapes)
    layers = {
        layer: (sum(end - start for start, end in rows), shapes[module][1])
        for module, parts in names.layers.items()
        for layer, rows in parts
    }
    untranslated = {layer for module in names.untranslated for layer, _ in names.layers[module]}
    return fit_families(layers, names.architectures, shapes, untranslated)


@pytest.mark.parametrize("class_name", CLASSES)
def test_a_lora_of_any_model_gets_its_own_family_or_none_without_doubt(class_name: str) -> None:
    shapes, own = small_model(class_name), FAMILY_BY_CLASS.get(class_name, UNKNOWN)
    attention = {name: shape for name, shape in shapes.items() if ATTENTION.fullmatch(name)}
    for chosen in filter(None, (shapes, attention)):
        for rename in ("transformer.{}".format, lambda name: "lora_unet_" + name.replace(".", "_")):
            fit = fit_of({rename(name): shape for name, shape in chosen.items()})
            family = choose_family(fit.families, {})
            is_in_doubt = bool(fit.doubts) or len(fit.families) > 1
            assert family in (own, UNKNOWN) or is_in_doubt or (class_name, chosen is shapes) in SAME_ATTENTION, fit
    if class_name in DEFAULTS:
        assert choose_family(fit_of(shapes).families, {}) == own


# classes whose defaults are a size of their family
DEFAULTS = {class_name for sizes in MODELS.values() for class_name, config in sizes if not config}
# those of no family whose attention is that of one, layer by layer, in all their blocks
SAME_ATTENTION = {
    ("AnyFlowTransformer3DModel", False),
    ("AnyFlowFARTransformer3DModel", False),
    ("HeliosTransformer3DModel", False),
    ("SanaVideoTransformer3DModel", False),
    ("SanaWMTransformer3DModel", False),
    ("WanAnimateTransformer3DModel", False),
    ("WanAnimate2Transformer3DModel", False),
}


@pytest.mark.parametrize(
    ("part", "name"), [("families", name) for name in MODELS] + [("others", name) for name in OTHERS]
)
def test_sizes_are_those_of_the_classes(part: str, name: str) -> None:
    models = MODELS if part == "families" else OTHERS
    assert DOCUMENT[part][name] == [describe_model(shapes_of_family(name, *size)) for size in models[name]]


def test_every_family_has_sizes() -> None:
    assert DOCUMENT["families"].keys() == MODELS.keys()
    assert weight_shapes("FluxTransformer2DModel", {"num_layers": 1, "num_single_layers": 1})["x_embedder"] == (
        3072,
        64,
    )
    assert all(hasattr(diffusers, class_name) for sizes in MODELS.values() for class_name, _ in sizes)
