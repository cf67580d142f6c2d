"""The models' own names of modules against diffusers' conversion of their checkpoints, and against diffusers' models.

Every row of a weight carries a number of its own, so that the converted weights show which rows each layer takes.
"""

import re
from collections.abc import Callable, Iterable

import pytest
import torch
from diffusers.loaders import lora_conversion_utils, single_file_utils
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from torch import Tensor

from loradex.retrieval.lora.layer_names import TranslatedNames, translate_names
from tests.retrieval.lora.models import meta_model, weight_shapes
from tests.retrieval.lora.test_against_checkpoints import Checkpoint

Table = dict[str, tuple[int, int]]  # shape (out, in) by module


def under(prefixes: Iterable[str], table: Table) -> Table:
    return {prefix + name: shape for prefix in prefixes for name, shape in table.items()}


def two(prefix: str, names: tuple[str, str], width: int, first: int) -> Table:
    """Two layers, of which the first takes another width."""
    return {f"{prefix}.{names[0]}": (width, first), f"{prefix}.{names[1]}": (width, width)}


def hunyuan(w: int, context: int, channels: int, separate: bool = False, single: bool = True) -> Table:
    attention = {f"attn_{part}": (w, w) for part in "qkv"} if separate else {"attn_qkv": (3 * w, w)}
    stream = attention | {
        "attn_proj": (w, w),
        "mlp.fc1": (4 * w, w),
        "mlp.fc2": (w, 4 * w),
        "mod.linear": (6 * w, w),
    }
    refiner = {"self_attn_qkv": (3 * w, w), "self_attn_proj": (w, w), "mlp.fc1": (4 * w, w), "mlp.fc2": (w, 4 * w)}
    linear = {"linear1": (7 * w, w), "linear2": (w, 5 * w), "modulation.linear": (3 * w, w)}
    return (
        under(("double_blocks.0.img_", "double_blocks.0.txt_"), stream)
        | (under(("single_blocks.0.",), linear) if single else {})
        | under(
            [f"txt_in.individual_token_refiner.blocks.{i}." for i in (0, 1)],
            refiner | {"adaLN_modulation.1": (2 * w, w)},
        )
        | two("txt_in.t_embedder", ("mlp.0", "mlp.2"), w, 256)
        | two("txt_in.c_embedder", ("linear_1", "linear_2"), w, context)
        | two("time_in", ("mlp.0", "mlp.2"), w, 256)
        | {"txt_in.input_embedder": (w, context), "img_in.proj": (w, channels)}
        | {"final_layer.linear": (min(channels, 64) if single else 32, w), "final_layer.adaLN_modulation.1": (2 * w, w)}
    )


def byt5(w: int) -> Table:
    return {"byt5_in.fc1": (2048, 1472), "byt5_in.fc2": (2048, 2048), "byt5_in.fc3": (w, 2048)}


HUNYUAN_VIDEO = (
    hunyuan(3072, 4096, 64)
    | two("guidance_in", ("mlp.0", "mlp.2"), 3072, 256)
    | two("vector_in", ("in_layer", "out_layer"), 3072, 768)
)
HUNYUAN_IMAGE = (
    hunyuan(3584, 3584, 64)
    | two("guidance_in", ("mlp.0", "mlp.2"), 3584, 256)
    | two("time_r_in", ("mlp.0", "mlp.2"), 3584, 256)
    | byt5(3584)
)
HUNYUAN_VIDEO_15 = (
    hunyuan(2048, 3584, 65, separate=True, single=False)
    | byt5(2048)
    | {"vision_in.proj.1": (1152, 1152), "vision_in.proj.3": (2048, 1152)}
)


def pixart(w: int, caption: int, feed_forward: Table, pixels: tuple[int, int]) -> Table:
    block = {"attn.qkv": (3 * w, w), "attn.proj": (w, w), "cross_attn.q_linear": (w, w), "cross_attn.proj": (w, w)}
    return (
        under(("blocks.0.",), block | {"cross_attn.kv_linear": (2 * w, w)} | under(("mlp.",), feed_forward))
        | two("t_embedder", ("mlp.0", "mlp.2"), w, 256)
        | two("y_embedder.y_proj", ("fc1", "fc2"), w, caption)
        | {"t_block.1": (6 * w, w), "x_embedder.proj": (w, pixels[0]), "final_layer.linear": (pixels[1], w)}
    )


SANA_FEED_FORWARD = {
    "inverted_conv.conv": (11200, 2240),
    "depth_conv.conv": (11200, 9),
    "point_conv.conv": (2240, 5600),
}
PIXART = (
    pixart(1152, 4096, {"fc1": (4608, 1152), "fc2": (1152, 4608)}, (16, 32))
    | two("csize_embedder", ("mlp.0", "mlp.2"), 384, 256)
    | two("ar_embedder", ("mlp.0", "mlp.2"), 384, 256)
)
AURAFLOW_FEED_FORWARD = {"c_fc1": (8192, 3072), "c_fc2": (8192, 3072), "c_proj": (3072, 8192)}
AURAFLOW = (
    under(("double_layers.0.attn.",), {f"w{i}{part}": (3072, 3072) for i in (1, 2) for part in "qkvo"})
    | under(("double_layers.0.mlpX.", "double_layers.0.mlpC.", "single_layers.0.mlp."), AURAFLOW_FEED_FORWARD)
    | under(("double_layers.0.modX.", "double_layers.0.modC.", "single_layers.0.modCX."), {"1": (18432, 3072)})
    | under(("single_layers.0.attn.",), {f"w1{part}": (3072, 3072) for part in "qkvo"})
    | two("t_embedder", ("mlp.0", "mlp.2"), 3072, 256)
    | {"cond_seq_linear": (3072, 2048), "init_x_linear": (3072, 16), "final_linear": (16, 3072), "modF.1": (6144, 3072)}
)
MOCHI_IMAGE = {"attn.qkv_x": (9216, 3072), "attn.proj_x": (3072, 3072), "mlp_x.w1": (16384, 3072)} | {
    "mlp_x.w2": (3072, 8192),
    "mod_x": (12288, 3072),
    "attn.qkv_y": (9216, 1536),
}
MOCHI_TEXT = {"attn.proj_y": (1536, 3072), "mlp_y.w1": (8192, 1536), "mlp_y.w2": (1536, 4096), "mod_y": (6144, 3072)}
MOCHI = (
    under(("blocks.0.",), MOCHI_IMAGE | MOCHI_TEXT)
    | under(("blocks.47.",), MOCHI_IMAGE | {"mod_y": (1536, 3072)})
    | two("t_embedder", ("mlp.0", "mlp.2"), 3072, 256)
    | under(("t5_y_embedder.",), {"to_kv": (8192, 4096), "to_q": (4096, 4096), "to_out": (3072, 4096)})
    | {"t5_yproj": (1536, 4096), "x_embedder.proj": (3072, 48), "final_layer.linear": (48, 3072)}
    | {"final_layer.mod": (6144, 3072)}
)
TABLES: dict[str, tuple[str, Table]] = {  # the converter, or "" where diffusers has none
    "hunyuan-video": ("convert_hunyuan_video_transformer_to_diffusers", HUNYUAN_VIDEO),
    "hunyuan-video-1.5": ("", HUNYUAN_VIDEO_15),
    "hunyuan-image": ("", HUNYUAN_IMAGE),
    "pixart": ("", PIXART),
    "sana": ("convert_sana_transformer_to_diffusers", pixart(2240, 2304, SANA_FEED_FORWARD, (32, 32))),
    "auraflow": ("convert_auraflow_transformer_checkpoint_to_diffusers", AURAFLOW),
    "mochi": ("convert_mochi_transformer_checkpoint_to_diffusers", MOCHI),
}


def dotted(name: str) -> str:
    return f"diffusion_model.{name}"


def flat(name: str) -> str:
    return "lora_unet_" + name.replace(".", "_")


def translate(table: Table, rename: Callable[[str], str], family: str) -> TranslatedNames:
    names = translate_names({rename(name): shape for name, shape in table.items()})
    assert names.untranslated == []
    assert names.architectures[0] == family
    return names


def numbered_weights(table: Table) -> dict[str, Tensor]:
    """Weights of width 1, with a number for each row."""
    weights, first = {}, 1
    for name, (out, _) in table.items():
        weights[name] = torch.arange(first, first + out).unsqueeze(1)
        first += out
    return weights


@pytest.mark.parametrize("rename", [dotted, flat])
@pytest.mark.parametrize("family", [family for family, (converter, _) in TABLES.items() if converter])
def test_rows_are_those_of_the_converted_checkpoint(family: str, rename: Callable[[str], str]) -> None:
    converter, table = TABLES[family]
    weights = numbered_weights(table)
    theirs = getattr(single_file_utils, converter)(
        Checkpoint({f"{name}.weight": weight for name, weight in weights.items()})
    )
    expected = {name.removesuffix(".weight"): weight for name, weight in theirs.items() if weight.any()}
    names = translate(table, rename, family)
    found = {
        layer: torch.cat([weights[name][start:end] for start, end in rows])
        for name in table
        for layer, rows in names.layers[rename(name)]
    }
    assert set(found) == set(expected)
    assert [name for name, rows in found.items() if not torch.equal(rows, expected[name])] == []


def in_small_model(layer: str) -> str:
    """The layer's name in a model of two blocks, which has no more than the first and the last."""
    return re.sub(r"^(transformer_blocks)\.47\.", r"\1.1.", layer)


@pytest.mark.parametrize("family", TABLES)
def test_all_layers_of_the_model_are_found_in_their_shapes(family: str) -> None:
    table = TABLES[family][1]
    names = translate(table, flat, family)
    found = {
        in_small_model(layer): (sum(end - start for start, end in rows), table[name][1])
        for name in table
        for layer, rows in names.layers[flat(name)]
    }
    expected = {name: (shape[0], shape[1:].numel()) for name, shape in weight_shapes(meta_model(family)).items()}
    assert found == expected


COMFYUI = {
    "_attn_": "_attn.",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.2",
    "mod.linear": "mod.lin",
    "modulation.linear": "modulation.lin",
    "embedder.mlp.0": "embedder.in_layer",
    "embedder.mlp.2": "embedder.out_layer",
    "embedder.linear_1": "embedder.in_layer",
    "embedder.linear_2": "embedder.out_layer",
    "_in.mlp.0": "_in.in_layer",
    "_in.mlp.2": "_in.out_layer",
}


def comfyui_name(name: str) -> str:
    for own, theirs in COMFYUI.items():
        name = name.replace(own, theirs)
    return name


@pytest.mark.parametrize("family", ["hunyuan-video", "hunyuan-video-1.5", "hunyuan-image"])
def test_comfyui_s_names_of_hunyuan_give_the_same_layers(family: str) -> None:
    table = TABLES[family][1]
    own = translate(table, dotted, family)
    for rename in (dotted, flat):
        theirs = translate(table, lambda name, rename=rename: rename(comfyui_name(name)), family)  # type: ignore[misc]
        for name in table:
            assert theirs.layers[rename(comfyui_name(name))] == own.layers[dotted(name)], name


def test_fused_names_of_hunyuan_video_15_give_the_separate_layers() -> None:
    table = under(("double_blocks.53.",), {"img_attn.qkv": (6144, 2048), "txt_attn.qkv": (6144, 2048)})
    separate = under(
        ("double_blocks.53.",), {f"{side}_attn_{part}": (2048, 2048) for side in ("img", "txt") for part in "qkv"}
    )
    fused = [layer for layers in translate(table, flat, "hunyuan-video-1.5").layers.values() for layer, _ in layers]
    own = [layer for layers in translate(separate, flat, "hunyuan-video-1.5").layers.values() for layer, _ in layers]
    assert fused == own


@pytest.mark.parametrize(
    ("family", "parts"),
    [
        ("hunyuan-video", ("img_attn_qkv", "txt_attn_qkv", "self_attn_qkv", "linear1")),
        ("pixart", ("attn.qkv", "cross_attn.kv_linear")),
    ],
)
def test_numbered_parts_of_a_module_are_its_layers(family: str, parts: tuple[str, ...]) -> None:
    """OneTrainer numbers what was trained apart."""
    table = TABLES[family][1]
    whole = translate(table, dotted, family)
    fused = {name: layers for name in table if name.endswith(parts) for layers in [whole.layers[dotted(name)]]}
    assert {name.endswith(part) for name in fused for part in parts} == {True, False}
    numbered = {
        f"{name}.{i}": (sum(end - start for start, end in rows), table[name][1])
        for name, layers in fused.items()
        for i, (_, rows) in enumerate(layers)
    }
    theirs = translate(
        {name: shape for name, shape in table.items() if name not in fused} | numbered, "transformer.{}".format, family
    )
    for name, layers in fused.items():
        for i, (layer, _) in enumerate(layers):
            assert [found for found, _ in theirs.layers[f"transformer.{name}.{i}"]] == [layer]


LTX2_NAMES = {
    "audio_proj_in": "audio_patchify_proj",
    "proj_in": "patchify_proj",
    "av_cross_attn_video_scale_shift": "av_ca_video_scale_shift_adaln_single",
    "av_cross_attn_audio_scale_shift": "av_ca_audio_scale_shift_adaln_single",
    "av_cross_attn_video_a2v_gate": "av_ca_a2v_gate_adaln_single",
    "av_cross_attn_audio_v2a_gate": "av_ca_v2a_gate_adaln_single",
    "audio_time_embed": "audio_adaln_single",
    "time_embed": "adaln_single",
    "audio_prompt_adaln": "audio_prompt_adaln_single",
    "prompt_adaln": "prompt_adaln_single",
}


@pytest.mark.parametrize("family", ["ltx-2", "ltx-video"])
@pytest.mark.parametrize("rename", [dotted, flat])
def test_ltx(family: str, rename: Callable[[str], str]) -> None:
    shapes = {name: (s[0], s[1:].numel()) for name, s in weight_shapes(meta_model(family)).items()}
    own = {}
    for name in shapes:
        first, dot, rest = name.partition(".")
        own[LTX2_NAMES.get(first, first) + dot + rest] = name
    assert len(own) == len(shapes)
    converted = lora_conversion_utils._convert_non_diffusers_ltx2_lora_to_diffusers(
        {f"diffusion_model.{name}.lora_A.weight": i for i, name in enumerate(own)}
    )
    assert list(converted) == [f"transformer.{name}.lora_A.weight" for name in own.values()]
    names = translate({name: shapes[layer] for name, layer in own.items()}, rename, family)
    assert {name: [layer for layer, _ in layers] for name, layers in names.layers.items()} == {
        rename(name): [layer] for name, layer in own.items()
    }


@pytest.mark.parametrize(
    "settings", [{}, {"per_modality_projections": True, "video_gated_attn": True, "audio_gated_attn": True}]
)
def test_connectors_of_ltx2(settings: dict[str, bool]) -> None:
    """Of LTX-2 and of LTX-2.3."""
    with torch.device("meta"):
        model = LTX2TextConnectors(**settings)
    shapes = {f"connectors.{name}": (s[0], s[1]) for name, s in weight_shapes(model).items()}
    own = {}
    for name in shapes:
        source = name.removeprefix("connectors.").replace("transformer_blocks", "transformer_1d_blocks")
        source = re.sub(r"^(\w*)text_proj_in$", r"text_embedding_projection.\1aggregate_embed", source)
        own[source.replace("_connector.", "_embeddings_connector.")] = name
    assert len(own) == len(shapes)
    names = translate({source: shapes[name] for source, name in own.items()}, dotted, "ltx-2")
    assert [layer for layers in names.layers.values() for layer, _ in layers] == list(own.values())
    translate(shapes, flat, "ltx-2")


def test_wan_with_vace() -> None:
    modules = {"self_attn.q": "attn1.to_q", "cross_attn.k_img": "attn2.add_k_proj", "ffn.0": "ffn.net.0.proj"}
    modules |= {"before_proj": "proj_in", "after_proj": "proj_out"}
    theirs = single_file_utils.convert_wan_transformer_to_diffusers(
        {f"vace_blocks.0.{name}.weight": torch.ones(1) for name in modules}
    )
    names = translate(dict.fromkeys((f"vace_blocks.0.{name}" for name in modules), (5120, 5120)), flat, "wan")
    found = [layer for layers in names.layers.values() for layer, _ in layers]
    assert sorted(found) == sorted(name.removesuffix(".weight") for name in theirs)


def test_anima_s_text_conditioner() -> None:
    names = {f"llm_adapter.blocks.3.cross_attn.{part}_proj": (1024, 1024) for part in "qkvo"}
    names["llm_adapter.blocks.0.mlp.2"] = (1024, 4096)
    converted = lora_conversion_utils._convert_non_diffusers_anima_lora_to_diffusers(
        {f"diffusion_model.{name}.lora_A.weight": None for name in names}
    )
    for rename in (dotted, flat):
        found = [layer for layers in translate(names, rename, "anima").layers.values() for layer, _ in layers]
        assert found == [name.removesuffix(".lora_A.weight") for name in converted]
