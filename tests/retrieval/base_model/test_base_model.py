"""What base models on disk are: families, parts, fingerprints."""

import json
import re
import shutil
from pathlib import Path

import pytest
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

from loradex.retrieval.base_model import BaseModel, Part, find_weights
from loradex.retrieval.base_model.part import DIFFUSERS, OPEN_CLIP, SGM, TRANSFORMERS
from loradex.retrieval.errors import FileCorrupt, FileMissing
from loradex.retrieval.lora.layer_names.unet import SGM_OUTER_MODULES, SGM_RESNET_MODULES
from tests.retrieval.base_model.base_files import (
    CLIP,
    UNET_LAYERS,
    VAE,
    change_weight,
    checkpoint_shapes,
    write_checkpoint,
    write_folder,
    write_tensors,
)
from tests.retrieval.lora.models import meta_model

DIFFUSION = "model.diffusion_model."
NORMS = (("in_layers.0", "norm1"), ("out_layers.0", "norm2"))


def sgm_name(name: str, levels_with_attention: set[int]) -> str:
    """SGM's name of a U-Net's tensor, by its name in diffusers (two resnets a level)."""
    for sgm, diffusers in (*SGM_OUTER_MODULES, ("out.0", "conv_norm_out")):
        if name.startswith(f"{diffusers}."):
            return name.replace(diffusers, sgm, 1)
    for sgm, diffusers in (*SGM_RESNET_MODULES, *NORMS):
        name = re.sub(rf"(resnets\.\d)\.{diffusers}\.", rf"\1.{sgm}.", name)
    words = name.split(".")
    side, rest = words[0], words[2:]
    if side == "mid_block":
        return ".".join(["middle_block", str(2 * int(words[2])) if words[1] == "resnets" else "1", *words[3:]])
    level, sampler = int(words[1]), rest[0].endswith("samplers")
    if side == "down_blocks":
        number = 3 * level + (3 if sampler else int(rest[1]) + 1)
        inner = ["0", "op", rest[-1]] if sampler else ["0" if rest[0] == "resnets" else "1", *rest[2:]]
        return ".".join(["input_blocks", str(number), *inner])
    number = 3 * level + (2 if sampler else int(rest[1]))
    before = "2" if level in levels_with_attention else "1"
    inner = [before, "conv", rest[-1]] if sampler else ["0" if rest[0] == "resnets" else "1", *rest[2:]]
    return ".".join(["output_blocks", str(number), *inner])


@pytest.mark.parametrize(("family", "up_attention"), [("sd1", {1, 2, 3}), ("sd2", {1, 2, 3}), ("sdxl", {0, 1})])
def test_whole_unets_as_diffusers_converts_them(family: str, up_attention: set[int], tmp_path: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in meta_model(family).state_dict().items()}
    sgm = {DIFFUSION + sgm_name(name, up_attention): shape for name, shape in shapes.items()}
    config: dict[str, object] = {"layers_per_block": 2, "class_embed_type": None, "num_class_embeds": None}
    config["addition_embed_type"] = "text_time" if family == "sdxl" else None
    assert convert_ldm_unet_checkpoint(dict(sgm), config) == shapes
    encoders = {name: shape for name, shape in checkpoint_shapes(family).items() if not name.startswith(DIFFUSION)}
    assert BaseModel.open(write_tensors(tmp_path / "one.safetensors", sgm | encoders)).family == family
    folder = write_folder(tmp_path / "folder")
    write_tensors(folder / "unet" / "diffusion_pytorch_model.safetensors", shapes)
    assert BaseModel.open(folder).family == family


@pytest.mark.parametrize(
    ("family", "encoders"),
    [
        ("sd1", {"text_encoder": ("cond_stage_model.transformer.", TRANSFORMERS)}),
        ("sd2", {"text_encoder": ("cond_stage_model.model.", OPEN_CLIP)}),
        (
            "sdxl",
            {
                "text_encoder": ("conditioner.embedders.0.transformer.", TRANSFORMERS),
                "text_encoder_2": ("conditioner.embedders.1.model.", OPEN_CLIP),
            },
        ),
        ("sdxl-refiner", {"text_encoder_2": ("conditioner.embedders.0.model.", OPEN_CLIP)}),
    ],
)
def test_parts_of_a_checkpoint_in_one_file(family: str, encoders: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "one.safetensors", family)
    base = BaseModel.open(path)
    rows = encoders | {"unet": (DIFFUSION, SGM), "vae": ("first_stage_model.", SGM)}
    assert (base.family, base.kind, base.path) == (family, "file", path)
    assert base.parts == {name: Part((path,), prefix, layout, None) for name, (prefix, layout) in rows.items()}
    assert base.size == path.stat().st_size


@pytest.mark.parametrize("variant", ["", "fp16"])
def test_parts_of_a_folder(variant: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", "sdxl", variant)
    base = BaseModel.open(folder)
    ending = f"{'.' if variant else ''}{variant}.safetensors"
    files = {name: folder / name / f"diffusion_pytorch_model{ending}" for name in ("unet", "vae")}
    encoder = folder / "text_encoder" / f"model{ending}"
    assert (base.family, base.kind) == ("sdxl", "folder")
    assert base.parts == {
        name: Part((path,), "", DIFFUSERS, path.with_name("config.json")) for name, path in files.items()
    } | {"text_encoder": Part((encoder,), "", TRANSFORMERS, encoder.with_name("config.json"))}
    weights = find_weights(folder / "unet")
    assert weights and weights.variant == variant


def test_shards_and_the_preferred_variant(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    unet, (first, second) = folder / "unet", UNET_LAYERS["sd1"].items()
    whole = unet / "diffusion_pytorch_model.safetensors"
    shutil.copy(whole, unet / "diffusion_pytorch_model.fp16.safetensors")
    assert BaseModel.open(folder).parts["unet"].files == (whole,)
    for path in unet.glob("*.safetensors"):
        path.unlink()
    names = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, (tensor, shape) in zip(names, (first, second), strict=True):
        write_tensors(unet / name, {tensor: shape})
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(UNET_LAYERS["sd1"], names, strict=True))}))
    base = BaseModel.open(folder)
    assert (base.family, base.parts["unet"].files) == ("sd1", tuple(unet / name for name in names))
    (unet / names[1]).unlink()
    with pytest.raises(FileMissing, match="00002-of-00002.* expected a file of the base model, found none"):
        BaseModel.open(folder)
    for value in ({"a": "../../other.safetensors"}, {"a": "/etc/passwd"}, {"a": 1}, {}, []):
        index.write_text(json.dumps({"weight_map": value}))
        with pytest.raises(FileCorrupt, match="expected (names of safetensors files beside it|a weight_map)"):
            BaseModel.open(folder)


def test_a_folder_without_its_unet_is_told_by_configurations(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder", "sd2")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    assert BaseModel.open(folder).family == "unknown"
    config = {"cross_attention_dim": 1024, "block_out_channels": [320, 640, 1280, 1280]}
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    base = BaseModel.open(folder)
    assert (base.family, set(base.parts)) == ("sd2", {"text_encoder", "vae"})
    index = json.loads((folder / "model_index.json").read_text())
    del index["unet"]
    index["transformer"] = ["diffusers", "FluxTransformer2DModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert BaseModel.open(folder).family == "flux1"


def test_transformers_in_one_file(tmp_path: Path) -> None:
    flux = {f"{DIFFUSION}double_blocks.{i}.img_attn.qkv.weight": (9216, 3072) for i in range(2)}
    flux[f"{DIFFUSION}single_blocks.37.linear1.weight"] = (21504, 3072)
    encoders = {f"text_encoders.clip_l.transformer.{name}": shape for name, shape in CLIP.items()}
    encoders["text_encoders.t5xxl.transformer.shared.weight"] = (9, 8)
    vae = {f"vae.{name}": shape for name, shape in VAE.items()}
    base = BaseModel.open(write_tensors(tmp_path / "flux.safetensors", flux | encoders | vae))
    assert base.family == "flux1" and base.parts["text_encoder_2"].prefix == "text_encoders.t5xxl.transformer."
    assert set(base.parts) == {"text_encoder", "text_encoder_2", "transformer", "vae"}


def test_the_fingerprint_follows_contents_and_nothing_else(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    fingerprint = BaseModel.open(folder).fingerprint
    shutil.copytree(folder, tmp_path / "moved")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").touch()
    assert BaseModel.open(folder).fingerprint == BaseModel.open(tmp_path / "moved").fingerprint == fingerprint
    change_weight(folder / "text_encoder" / "model.safetensors")
    weights = BaseModel.open(folder).fingerprint
    (folder / "text_encoder" / "config.json").write_text('{"hidden_act": "gelu"}')
    config = BaseModel.open(folder).fingerprint
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert len({fingerprint, weights, config, BaseModel.open(folder).fingerprint}) == 4
    one = write_checkpoint(tmp_path / "one.safetensors")
    before = BaseModel.open(one).fingerprint
    change_weight(one)
    assert BaseModel.open(one).fingerprint != before
