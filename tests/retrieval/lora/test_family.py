"""Families told from all layers of diffusers' models, and from some."""

from collections.abc import Iterable

import pytest
import torch
from safetensors.torch import save_file

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.family import UNKNOWN, choose_family, find_families
from loradex.retrieval.lora.family_names import family_in_metadata
from loradex.retrieval.lora.layer_names import translate_names
from tests.retrieval.lora.models import MODELS, meta_model, weight_shapes

Shapes = dict[str, tuple[int, int]]
UNETS = ("sd1", "sd2", "sdxl")


def shapes_of(name: str, part: str = "") -> Shapes:
    return {
        path: (shape[0], shape[1:].numel()) for path, shape in weight_shapes(meta_model(name)).items() if part in path
    }


def encoder(component: str, width: int) -> Shapes:
    layer = f"{component}.text_model.encoder.layers.3."
    return {f"{layer}self_attn.q_proj": (width, width), f"{layer}mlp.fc1": (4 * width, width)}


@pytest.mark.parametrize("name", MODELS)
def test_all_layers_of_a_model(name: str) -> None:
    shapes = shapes_of(name)
    assert find_families(shapes, translate_names(shapes).architectures)[0] == name


@pytest.mark.parametrize(
    ("name", "part", "families"),
    [
        ("sd1", "attn2.to_k", ["sd1"]),
        ("sd2", "attn2", ["sd2"]),
        ("sdxl", "attn2.to_v", ["sdxl"]),
        ("sdxl", "attn1", ["sdxl"]),
        ("sdxl", "resnets", ["sdxl"]),
        ("sdxl", "up_blocks.0.attentions.1.transformer_blocks.9.attn1.to_q", ["sdxl"]),
        ("sd1", "attn1", ["sd1", "sd2"]),
        ("sd2", "resnets", ["sd1", "sd2"]),
        ("sd1", "mid_block.attentions.0.transformer_blocks.0.attn2.to_k", ["sd1"]),
    ],
)
def test_some_layers_of_a_u_net(name: str, part: str, families: list[str]) -> None:
    assert find_families(shapes_of(name, part)) == families


@pytest.mark.parametrize(
    ("shapes", "modules", "families"),
    [
        (encoder("text_encoder", 768), ["lora_te_text_model_encoder_layers_3_mlp_fc1"], ["sd1"]),
        (
            encoder("text_encoder", 768),
            ["lora_te1_text_model_encoder_layers_3_mlp_fc1"],
            ["sdxl", "flux1", "sd3", "hidream"],
        ),
        (
            encoder("text_encoder", 768),
            ["text_encoder.text_model.encoder.layers.3.mlp.fc1"],
            ["sd1", "sdxl", "flux1", "sd3", "hidream"],
        ),
        (encoder("text_encoder", 1024), [], ["sd2"]),
        ({"text_encoder.layers.5.self_attn.q_proj": (2048, 1024)}, [], ["anima"]),
        ({"text_encoder.layers.28.self_attn.q_proj": (2048, 1024)}, [], []),
        ({"text_encoder_2.encoder.block.3.layer.0.SelfAttention.q": (4096, 4096)}, [], ["flux1"]),
        (encoder("text_encoder", 768) | encoder("text_encoder_2", 1280), [], ["sdxl", "sd3", "hidream"]),
        (encoder("text_encoder", 77), [], []),
        ({}, [], []),
    ],
)
def test_text_encoders_alone(shapes: Shapes, modules: list[str], families: list[str]) -> None:
    assert find_families(shapes, [], modules) == families


def test_a_text_encoder_decides_between_u_nets() -> None:
    attention = shapes_of("sd1", "attn1")
    assert find_families(attention | encoder("text_encoder", 1024)) == ["sd2"]
    assert find_families(attention | encoder("text_encoder", 768)) == ["sd1"]


def test_metadata_only_choose_among_the_families_that_fit() -> None:
    for key, value in (("ss_base_model_version", "sd_v2_v"), ("modelspec.architecture", "stable-diffusion-v2-768-v")):
        assert choose_family(["sd1", "sd2"], {key: value}) == "sd2"
        assert choose_family(["sdxl"], {key: value}) == "sdxl"
        assert choose_family([], {key: value}) == UNKNOWN
    assert choose_family(["sd1", "sd2"], {"ss_base_model_version": "something"}) == "sd1"


def lora_of(path: object, shapes: Shapes, metadata: dict[str, str]) -> LoraFile:
    tensors = {f"{name}.lora.down.weight": torch.ones(1, width) for name, (_, width) in shapes.items()}
    save_file(
        tensors | {f"{name}.lora.up.weight": torch.ones(out, 1) for name, (out, _) in shapes.items()}, path, metadata
    )
    return LoraFile.open(path)  # type: ignore[arg-type]


def test_doubts_are_problems(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("doubts") / "x.safetensors"
    attention = shapes_of("sd1", "down_blocks.0.attentions.0.transformer_blocks.0.attn1")
    assert lora_of(path, attention, {}).problems == ["these layers fit the families sd1, sd2; the first is assumed"]
    named = lora_of(path, attention, {"ss_base_model_version": "sd_v2"})
    assert (named.family, named.problems) == ("sd2", [])
    wrong = lora_of(path, shapes_of("sdxl", "attn2.to_k"), {"ss_base_model_version": "sd_v1"})
    assert (wrong.family, wrong.problems) == ("sdxl", ["the metadata name the family sd1, the layers fit sdxl"])
    other = lora_of(path, shapes_of("sdxl", "attn2.to_k"), {"modelspec.architecture": "Kolors/lora"})
    assert (other.family, other.problems) == ("sdxl", ["the metadata name the family kolors, the layers fit sdxl"])
    strange = lora_of(path, {"down_blocks.x.y": (3, 4), "text_encoder.z": (3, 4), "down_blocks": (3, 3)}, {})
    assert strange.family == UNKNOWN


@pytest.mark.parametrize(
    ("key", "value", "family"),
    [
        ("ss_base_model_version", "sd_1.5", "sd1"),
        ("ss_base_model_version", "sd_2.1", "sd2"),
        ("ss_base_model_version", "sdxl_1.0", "sdxl"),
        ("ss_base_model_version", "sdxl_base_v1-0", "sdxl"),
        ("ss_base_model_version", "flux.1_kontext", "flux1"),
        ("ss_base_model_version", "flux2_klein_4b", "flux2"),
        ("ss_base_model_version", "wan_2.2_14b", "wan"),
        ("ss_base_model_version", "zimage", "z-image"),
        ("ss_base_model_version", "zeta_chroma", "zeta-chroma"),
        ("ss_base_model_version", "hunyuan_video", "hunyuan-video"),
        ("ss_base_model_version", "hunyuan-image-2.1", "hunyuan-image"),
        ("ss_base_model_version", "ltx2", "ltx-2"),
        ("modelspec.architecture", "Flux.1-dev/lora", "flux1"),
        ("modelspec.architecture", "hunyuan-video-1.5/lora", "hunyuan-video-1.5"),
        ("modelspec.architecture", "wan2.1/lora", "wan"),
        ("modelspec.architecture", "Qwen-Image-Edit-Plus/lora", "qwen-image"),
        ("modelspec.architecture", "stable-diffusion-xl-v1-refiner", "sdxl-refiner"),
        ("modelspec.architecture", "stable-diffusion-3.5-large/lora", "sd3"),
        ("modelspec.architecture", "framepack/lora", "framepack"),
        ("ss_network_module", "networks.lora_hv_1_5", "hunyuan-video-1.5"),
        ("ss_network_module", "networks.lora", None),
        ("ss_base_model_version", "fluxes", None),
        ("ss_base_model_version", "-" * 10**6, None),
    ],
)
def test_names_that_trainers_write(key: str, value: str, family: str | None) -> None:
    assert family_in_metadata({key: value}) == family


@pytest.mark.parametrize(
    ("modules", "family"),
    [
        ({"blocks.39.cross_attn.k": (5120, 5120)}, "wan"),
        ({"transformer_blocks.59.attn.to_q": (3072, 3072)}, "qwen-image"),
        ({"transformer_blocks.5.attn.to_q": (1536, 1536)}, "sd3"),
        ({"joint_blocks.3.context_block.attn.qkv": (4608, 1536)}, "sd3"),
        ({"single_transformer_blocks.37.attn.to_q": (3072, 3072)}, "flux1"),
        ({"single_transformer_blocks.39.attn.to_q": (3072, 3072)}, "hunyuan-video"),
        ({"single_blocks.9.linear1": (55296, 6144)}, "flux2"),
        ({"layers.3.attention.qkv": (11520, 3840)}, "z-image"),
        ({"layers.3.attention.qkv": (3840, 2304)}, "lumina2"),
        ({"blocks.3.self_attn.q_proj": (2048, 2048)}, "anima"),
        ({"blocks.3.attn.wq": (2048, 2048)}, "krea2"),
        ({"double_stream_blocks.3.block.attn1.to_q": (2560, 2560)}, "hidream"),
        ({"distilled_guidance_layer.layers.0.in_layer": (5120, 5120)}, "chroma"),
    ],
)
def test_transformers_by_one_module(modules: Shapes, family: str) -> None:
    for prefix in ("diffusion_model.", "lora_unet_"):
        named = {
            prefix + (name if prefix.endswith(".") else name.replace(".", "_")): shape
            for name, shape in modules.items()
        }
        assert translate_names(named).architectures[0] == family


def families_of(modules: Shapes) -> list[str]:
    names = translate_names({f"diffusion_model.{name}": shape for name, shape in modules.items()})
    shapes = {
        layer: (sum(end - start for start, end in rows), modules[module.removeprefix("diffusion_model.")][1])
        for module, layers in names.layers.items()
        for layer, rows in layers
    }
    return find_families(shapes, names.architectures)


def square(pattern: str, blocks: Iterable[int], width: int) -> Shapes:
    return {pattern.replace("#", str(block)): (width, width) for block in blocks}


@pytest.mark.parametrize(
    ("modules", "families"),
    [
        (square("double_blocks.#.img_attn.proj", (0, 18), 3072), ["flux1", "chroma"]),  # where both end
        (square("double_blocks.#.img_attn.proj", (0, 19), 3072), ["hunyuan-video"]),
        (square("double_blocks.#.img_attn.proj", (7,), 3072), ["flux1", "chroma", "hunyuan-video", "qwen-image"]),
        (square("double_blocks.#.img_attn.proj", (0, 18), 1000), []),
        (square("single_transformer_blocks.#.attn.to_q", (0, 37), 3072), ["flux1", "chroma"]),
        (square("single_transformer_blocks.#.attn.to_q", (0, 38), 3072), ["hunyuan-video"]),
        (
            square("single_transformer_blocks.#.attn.to_q", (7, 20), 3072),
            ["flux1", "chroma", "hunyuan-video", "auraflow"],
        ),
        (
            square("transformer_blocks.#.attn.to_q", range(6), 3072),
            [UNKNOWN, "flux1", "chroma", "hunyuan-video", "qwen-image"],
        ),
        (square("single_transformer_blocks.#.attn.to_q", (0, 31), 3072), ["auraflow"]),
        (square("transformer_blocks.#.attn.to_q", (0, 59), 3072), ["qwen-image"]),
        (square("blocks.#.self_attn.q", (0, 39), 5120), ["wan"]),
        (square("blocks.#.self_attn.q", (0, 40), 5120), []),
        (square("blocks.#.self_attn.q_proj", (0, 27), 2048), ["anima"]),
        (square("blocks.#.self_attn.q_proj", (0, 35), 5120), []),  # Cosmos-Predict2 14B
        (square("transformer_blocks.#.attn2.to_k", (0, 27), 1152), ["pixart", "sana"]),
    ],
)
def test_width_and_depth_tell_transformers_apart(modules: Shapes, families: list[str]) -> None:
    assert families_of(modules) == families


def test_layers_that_a_family_lacks(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("lacks") / "x.safetensors"
    blocks = square("transformer_blocks.#.img_mod.1", (0, 30, 59), 3072)
    modulations = {name: (18432, 3072) for name in blocks}
    lora = lora_of(path, modulations | {"some.gate": (3, 4)}, {})
    assert lora.family == "qwen-image"
    assert "the family qwen-image is in doubt: it lacks 1 of the layers, such as some.gate" in lora.problems
    assert lora_of(path, modulations | {f"some.{i}": (3, 4) for i in range(3)}, {}).family == UNKNOWN
    other = lora_of(path, {name: (1000, 3072) for name in blocks}, {"ss_base_model_version": "qwen_image"})
    assert other.family == UNKNOWN
    assert other.problems == [
        "the layers have the names of qwen-image, but transformer_blocks.0.img_mod.1 of shape (1000, 3072) is in none of its sizes",
        "the metadata name the family qwen-image, whose layers these are not",
    ]


def test_the_miniature() -> None:
    block = "down_blocks.1.attentions.0.transformer_blocks.0."
    for family, width in (("mini-a", 144), ("mini-b", 112)):
        assert find_families({block + "attn1.to_q": (width, width), block + "attn2.to_k": (width, 128)}) == [family]
