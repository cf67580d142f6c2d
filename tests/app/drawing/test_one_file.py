"""Checkpoints in one file, compared with the pipelines that they were made from."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, ConfigMixin, SD3Transformer2DModel, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from loradex.app.bases.changes import add_bases
from loradex.app.commands.main import app
from loradex.app.drawing.base_models import BaseModel, BaseModels
from loradex.app.drawing.errors import BadBase, NoBase
from loradex.app.drawing.loaded_models import DiffusersBaseModel
from loradex.app.drawing.one_file import CONFIGS, V_BIAS, settings_of_sd3
from loradex.app.drawing.options import DrawOptions
from loradex.retrieval.errors import CheckpointError, FileUnsafe
from loradex.retrieval.lora.family import UNETS
from loradex.retrieval.lora.header import Header
from tests.app.drawing.original_layout import save_one_file, unet_tensors, vae_tensors
from tests.app.drawing.random_pipelines import SD3_MEDIUM, random_pipeline
from tests.app.drawing.tiny_families import use_tiny_families
from tests.retrieval.base_model.base_files import write_checkpoint

FAMILIES = ("sd1", "sd2", "sdxl", "sd3")
PARAMETERS = {  # of the published models
    "unet-sd1": (UNet2DConditionModel, 859_520_964),
    "unet-sd2": (UNet2DConditionModel, 865_910_724),
    "unet-sdxl": (UNet2DConditionModel, 2_567_463_684),
    "vae-sd": (AutoencoderKL, 83_653_863),
    "vae-sd3": (AutoencoderKL, 83_819_683),
}
Saved = tuple[Any, Path]


# of diffusers and numpy 2, from the scheduler of SDXL
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def configs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield use_tiny_families(monkeypatch, tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="module")
def saved(configs: Path) -> Callable[[str], Saved]:
    @cache
    def save(family: str) -> Saved:
        pipe = random_pipeline(family, configs)
        return pipe, save_one_file(pipe, family, configs / f"{family}.safetensors")

    return save


def load(path: Path, dtype: torch.dtype = torch.float32) -> Any:
    return DiffusersBaseModel(path, "cpu", dtype).pipeline


def settings_of(component: Any) -> dict[str, Any]:
    """What a component of diffusers was made with, lists as tuples."""
    items = {name: value for name, value in component.config.items() if not name.startswith("_")}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in items.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_settings_and_drawings_are_those_of_the_pipeline(
    family: str, saved: Callable[[str], Saved], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, path = saved(family)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    loaded = load(path)
    assert type(loaded) is type(pipe) and loaded.components.keys() == pipe.components.keys()
    for name, component in pipe.components.items():
        other = loaded.components[name]
        if isinstance(component, torch.nn.Module):
            before, after = component.state_dict(), other.state_dict()
            assert before.keys() == after.keys()
            assert all(torch.equal(tensor, after[key]) for key, tensor in before.items()), name
        if isinstance(component, ConfigMixin):
            assert settings_of(component) == settings_of(other), name

    def draw(pipeline: Any) -> bytes:
        pipeline.set_progress_bar_config(disable=True)
        made = pipeline(
            "a red cat!", num_inference_steps=2, height=16, width=16, generator=torch.Generator().manual_seed(1)
        )
        return made.images[0].tobytes()

    assert draw(loaded) == draw(pipe)


def test_weights_are_made_in_the_dtype_that_is_asked_for(saved: Callable[[str], Saved]) -> None:
    pipe, path = saved("sdxl")
    loaded = load(path, torch.bfloat16)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        before, after = pipe.components[name].state_dict(), loaded.components[name].state_dict()
        assert all(torch.equal(tensor.bfloat16(), after[key]) for key, tensor in before.items())
    small = pipe.components["unet"].state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in small.values())


def test_what_is_predicted_is_told_by_the_file(saved: Callable[[str], Saved], configs: Path) -> None:
    pipe, path = saved("sd2")
    assert load(path).scheduler.config.prediction_type == "epsilon"
    predicts_v = {V_BIAS: torch.linspace(-1, 1, 8)}
    other = load(save_one_file(pipe, "sd2", configs / "v.safetensors", predicts_v))
    assert (other.scheduler.config.prediction_type, other.unet.config.sample_size) == ("v_prediction", 96)
    predicts_noise = {V_BIAS: torch.linspace(-0.01, 0.01, 8)}
    other = load(save_one_file(pipe, "sd2", configs / "noise.safetensors", predicts_noise))
    assert (other.scheduler.config.prediction_type, other.unet.config.sample_size) == ("epsilon", 8)
    pipe, path = saved("sdxl")
    scheduler = load(path).scheduler.config
    assert (scheduler.prediction_type, scheduler.rescale_betas_zero_snr) == ("epsilon", False)
    names = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    scheduler = load(save_one_file(pipe, "sdxl", configs / "xlv.safetensors", names)).scheduler.config
    assert (scheduler.prediction_type, scheduler.rescale_betas_zero_snr) == ("v_prediction", True)


def test_added_and_named_files_draw_loras(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    pipe, path = saved("sd1")
    unet = pipe.unet
    unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_q", "to_out.0"]))
    type(pipe).save_lora_weights(tmp_path, get_peft_model_state_dict(unet))
    unet.delete_adapters("default")
    lora = str(tmp_path / "pytorch_lora_weights.safetensors")
    drawing = ["draw", lora, "--prompt", "a cat", "--steps", "2", "--size", "64", "--json", "--out", str(tmp_path)]
    nothing = CliRunner().invoke(app, drawing)
    assert nothing.exit_code == 1 and "name one with `loradex base add PATH`" in nothing.stderr
    named = CliRunner().invoke(app, [*drawing, "--base", f"sd1={path}"])
    assert named.exit_code == 0, named.output
    assert CliRunner().invoke(app, ["base", "add", str(path)]).exit_code == 0
    added = CliRunner().invoke(app, drawing)
    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["results"][0]["family"] == "sd1"
    assert list(BaseModels.from_pairs().by_family) == ["mini-a", "mini-b", "sd1"]


def test_signature_changes_with_the_file(saved: Callable[[str], Saved]) -> None:
    _, path = saved("sd1")
    before = BaseModel.from_path("sd1", path).signature
    assert before == BaseModel.from_path("sd1", path).signature
    path.touch()
    assert before != BaseModel.from_path("sd1", path).signature


def test_what_cannot_be_loaded_is_refused_in_one_line(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    _, path = saved("sd1")
    tensors = load_file(path)

    def refused(match: str, changed: dict[str, torch.Tensor], without: tuple[str, ...] = ()) -> None:
        file = tmp_path / "changed.safetensors"
        save_file({k: v for k, v in (tensors | changed).items() if not k.startswith(without or "-")}, file)
        with pytest.raises(CheckpointError, match=match) as caught:
            load(file)
        assert "\n" not in str(caught.value) and str(file) in str(caught.value)

    refused("expected a vae in it, found text_encoder, unet", {}, ("first_stage_model.",))
    refused(
        "expected the unet of sd1, found tensors missing",
        {},
        ("model.diffusion_model.out.0.",),
    )
    refused("expected the vae of sd1, found", {"first_stage_model.decoder.conv_in.bias": torch.zeros(3)})
    refused("of shape .* found none", {}, ("cond_stage_model.transformer.text_model.final_layer_norm.bias",))
    layer = "model.diffusion_model.input_blocks.1.1.proj_in.bias"
    refused("expected F64, F32, F16, BF16, found F8_E4M3", {layer: tensors[layer].to(torch.float8_e4m3fn)})
    pickle = tmp_path / "model.ckpt"
    torch.save(tensors, pickle)
    with pytest.raises(FileUnsafe):
        load(pickle)


def test_sizes_of_sd3_are_bounded(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    pipe, _ = saved("sd3")
    name = "model.diffusion_model.joint_blocks.{}.context_block.attn.qkv.weight"
    file = save_one_file(pipe, "sd3", tmp_path / "deep.safetensors", {name.format(999_999_999): torch.zeros(3, 1)})
    with pytest.raises(CheckpointError, match="with up to 100 blocks, found block 999999999"):
        settings_of_sd3(Header.read(file))


def test_other_families_are_refused_with_the_way_out(tmp_path: Path) -> None:
    one = write_checkpoint(tmp_path / "one.safetensors", "sdxl-refiner")
    add_bases([one])
    with pytest.raises(NoBase, match="found a checkpoint in one file, which is loaded for sd1, sd2, sdxl, sd3 only"):
        BaseModels().get("sdxl-refiner")
    with pytest.raises(CheckpointError, match="expected a folder of diffusers of sdxl-refiner, found"):
        BaseModel.from_path("sdxl-refiner", one).load()


def test_folders_are_loaded_in_a_dtype_and_parts_released(saved: Callable[[str], Saved], tmp_path: Path) -> None:
    pipe, _ = saved("sdxl")
    pipe.save_pretrained(tmp_path / "folder")
    loaded = DiffusersBaseModel(tmp_path / "folder", "cpu", torch.bfloat16)
    assert {part.dtype for part in loaded.components.values()} == {torch.bfloat16}
    assert loaded.components.keys() == {"denoiser", "text_encoder", "text_encoder_2"}
    loaded.release("text_encoder", "vae")
    assert loaded.components.keys() == {"denoiser", "text_encoder_2"} and loaded.pipeline.vae is None
    with pytest.raises(BadBase):
        loaded.generate(DrawOptions("a cat", steps=1, size=64), lambda: None)


@pytest.mark.parametrize("name", PARAMETERS)
def test_shipped_configurations_have_the_sizes_of_the_published_models(name: str) -> None:
    kind, count = PARAMETERS[name]
    with init_empty_weights():
        model = kind.from_config(kind.load_config(CONFIGS / f"{name}.json"))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_tensors_of_true_checkpoints_are_renamed_by_the_shipped_configurations(family: str) -> None:
    config = UNet2DConditionModel.load_config(CONFIGS / f"unet-{family}.json")
    with init_empty_weights():
        unet = UNet2DConditionModel.from_config(config)
        vae = AutoencoderKL.from_config(AutoencoderKL.load_config(CONFIGS / "vae-sd.json"))
    assert convert_ldm_unet_checkpoint(unet_tensors(unet), config).keys() == unet.state_dict().keys()
    renamed = convert_ldm_vae_checkpoint(vae_tensors(vae), AutoencoderKL.load_config(CONFIGS / "vae-sd.json"))
    assert renamed.keys() == vae.state_dict().keys()


def test_shipped_configurations_agree_with_the_facts_by_which_families_are_told() -> None:
    for family, unet in UNETS.items():
        path = CONFIGS / f"unet-{family}.json"
        if path.exists() and unet.block_out_channels[0] == 320:
            config = UNet2DConditionModel.load_config(path)
            assert config["cross_attention_dim"] == unet.cross_attention_dim
    with init_empty_weights():
        config = SD3Transformer2DModel.load_config(CONFIGS / "transformer-sd3.json")
        SD3Transformer2DModel.from_config({**config, **SD3_MEDIUM})
