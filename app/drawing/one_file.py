"""Checkpoints in one file as pipelines of diffusers, with nothing from a hub.

A file holds weights alone. What belongs to it is the same for all checkpoints of a family: the configurations of U-Net,
transformer and VAE are in ``configs/``, with what differs from the defaults of diffusers' classes; sizes of text
encoders, and those of SD 3's transformer, come from the shapes of their tensors; the vocabulary of CLIP is open_clip's.
The facts are those of Stability AI's and CompVis' configurations, as diffusers' folders of these models have them.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging
from torch import Tensor, nn

from loradex.app.drawing.one_file_text import IDENTITY, IN_FILE, load_text_encoder, load_text_tokenizer
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.text_states.families import FAMILIES, EncoderFacts
from loradex.retrieval.text_states.weights import FLOATS

CONFIGS: Final = Path(__file__).with_name("configs")
BETAS: Final = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
V_BIAS: Final = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
V_SPREAD: Final = 0.09
V_SAMPLE_SIZE: Final = 96  # of SD 2 that predicts v: 768 pixels
BLOCK: Final = "model.diffusion_model.joint_blocks."
MAX_BLOCKS: Final = 100

Settings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a checkpoint in one file of a family becomes a pipeline.

    Attributes:
        pipeline: its class.
        denoiser: class of the U-Net or transformer, and its configuration in ``CONFIGS``.
        vae: configuration of the VAE, and ``vae_settings`` that differ.
        scheduler: class and settings.
        settings_of: further settings of the denoiser and of the scheduler, read from the file.
        encoders: its text encoders.
        projected: which of them have a projection of their pooled state; ``identity`` where the file leaves it out, as
            those of SD 3 do for the first.
        extra: arguments of the pipeline besides its components.
    """

    pipeline: type
    denoiser: tuple[Any, str]
    vae: str
    scheduler: tuple[Any, Settings]
    encoders: tuple[EncoderFacts, ...]
    vae_settings: Settings = field(default_factory=dict)
    settings_of: Callable[[Header], tuple[Settings, Settings]] = lambda header: ({}, {})
    projected: Mapping[str, str] = field(default_factory=dict)
    extra: Settings = field(default_factory=dict)


def settings_of_sd2(header: Header) -> tuple[Settings, Settings]:
    """Whether SD 2 predicts v, at 768 pixels, or the noise, at 512: nothing in a file says so.

    A bias tells: it spreads more where v is predicted (ComfyUI ``comfy/supported_models.py``, ``SD20.model_type``).
    """
    if V_BIAS in header.tensors and float(header.load([V_BIAS])[V_BIAS].float().std(correction=0)) > V_SPREAD:
        return {"sample_size": V_SAMPLE_SIZE, "upcast_attention": True}, {"prediction_type": "v_prediction"}
    return {}, {}


def settings_of_sdxl(header: Header) -> tuple[Settings, Settings]:
    """Whether SDXL predicts v: trainers of such models put empty tensors of these names into the file."""
    prediction = "v_prediction" if "v_pred" in header.tensors else "epsilon"
    return {}, {"prediction_type": prediction, "rescale_betas_zero_snr": "ztsnr" in header.tensors}


def settings_of_sd3(header: Header) -> tuple[Settings, Settings]:
    """The sizes of SD 3's transformer, which its versions differ in.

    Raises:
        CheckpointError: tensors are missing.
    """
    shapes = {name: info.shape for name, info in header.tensors.items()}
    stem = BLOCK.removesuffix("joint_blocks.")
    numbers = {name.removeprefix(BLOCK).partition(".")[0] for name in shapes if name.startswith(BLOCK)}
    blocks = {int(number) for number in numbers if re.fullmatch(r"[0-9]{1,9}", number)}
    if max(blocks, default=MAX_BLOCKS) >= MAX_BLOCKS:
        found = f"block {max(blocks)}" if blocks else "none"
        raise CheckpointError(
            f"{header.path}: expected the transformer of SD 3 with up to {MAX_BLOCKS} blocks, found {found}; download it again"
        )
    try:
        width, states = shapes[f"{stem}context_embedder.weight"]
        pooled = shapes[f"{stem}y_embedder.mlp.0.weight"][1]
        positions = shapes[f"{stem}pos_embed"][1]
    except (KeyError, ValueError, IndexError):
        found = "tensors of its embeddings missing"
        raise CheckpointError(
            f"{header.path}: expected the transformer of SD 3, found {found}; download it again"
        ) from None
    dual = {block for block in blocks if f"{BLOCK}{block}.x_block.attn2.qkv.weight" in shapes}
    settings = {
        "num_layers": max(blocks) + 1,
        "num_attention_heads": width // 64,
        "caption_projection_dim": width,
        "joint_attention_dim": states,
        "pooled_projection_dim": pooled,
        "pos_embed_max_size": round(positions**0.5),
        "dual_attention_layers": tuple(sorted(dual)),
        "qk_norm": "rms_norm" if f"{BLOCK}0.x_block.attn.ln_q.weight" in shapes else None,
    }
    return settings, {}


SD_EXTRA: Final[Settings] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
SD_SCHEDULER: Final = PNDMScheduler, {**BETAS, "skip_prk_steps": True}
RECIPES: Final = {
    "sd1": Recipe(
        StableDiffusionPipeline,
        (UNet2DConditionModel, "unet-sd1.json"),
        "vae-sd.json",
        SD_SCHEDULER,
        FAMILIES["sd1"].encoders,
        extra=SD_EXTRA,
    ),
    "sd2": Recipe(
        StableDiffusionPipeline,
        (UNet2DConditionModel, "unet-sd2.json"),
        "vae-sd.json",
        SD_SCHEDULER,
        FAMILIES["sd2"].encoders,
        settings_of=settings_of_sd2,
        extra=SD_EXTRA,
    ),
    "sdxl": Recipe(
        StableDiffusionXLPipeline,
        (UNet2DConditionModel, "unet-sdxl.json"),
        "vae-sd.json",
        (EulerDiscreteScheduler, {**BETAS, "timestep_spacing": "leading"}),
        FAMILIES["sdxl"].encoders,
        vae_settings={"scaling_factor": 0.13025, "sample_size": 1024},
        settings_of=settings_of_sdxl,
        projected={"text_encoder_2": IN_FILE},
        extra={"add_watermarker": False},
    ),
    "sd3": Recipe(
        StableDiffusion3Pipeline,
        (SD3Transformer2DModel, "transformer-sd3.json"),
        "vae-sd3.json",
        (FlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
        FAMILIES["sdxl"].encoders,  # the same two CLIPs
        settings_of=settings_of_sd3,
        projected={"text_encoder": IDENTITY, "text_encoder_2": IN_FILE},
        # T5's tokenizer is in no checkpoint; SD 3 was trained to do without its states
        extra={"text_encoder_3": None, "tokenizer_3": None},
    ),
}


def load_checkpoint(base: BaseModel, dtype: torch.dtype) -> Any:
    """Load a checkpoint in one file as a pipeline of diffusers on the CPU.

    Args:
        base: of kind ``file``.
        dtype: of the weights. Tensors are turned into it as they are read, so that no more is in memory.

    Raises:
        CheckpointError: its family is not loaded from one file, or a part is missing or of another size.
        FileError: the file is corrupt, or changed while it was read.
    """
    recipe = RECIPES.get(base.family)
    if recipe is None:
        raise CheckpointError(one_file(base.path, base.family))
    header = Header.read(base.path)
    denoiser_settings, scheduler_settings = recipe.settings_of(header)
    kind, config = recipe.denoiser
    component = "transformer" if kind is SD3Transformer2DModel else "unet"
    components = {
        component: load_part(base, component, header, kind, config, dtype, denoiser_settings),
        "vae": load_part(base, "vae", header, AutoencoderKL, recipe.vae, dtype, recipe.vae_settings),
    }
    for facts in recipe.encoders:
        projection = recipe.projected.get(facts.component)
        encoder = load_text_encoder(base, facts, projection, dtype)
        components[facts.component] = encoder
        tokenizer = load_text_tokenizer(facts, encoder.config.max_position_embeddings)
        components[facts.component.replace("text_encoder", "tokenizer")] = tokenizer
    scheduler, settings = recipe.scheduler
    components["scheduler"] = scheduler(**settings, **scheduler_settings)
    return recipe.pipeline(**components, **recipe.extra)


def load_part(
    base: BaseModel,
    component: str,
    header: Header,
    kind: Any,
    config: str,
    dtype: torch.dtype,
    settings: Mapping[str, Any],
) -> nn.Module:
    """Load the U-Net, transformer or VAE of a checkpoint, whose tensors diffusers renames.

    Raises:
        CheckpointError: it is missing, or tensors of it are, or have another shape or an odd dtype.
        FileError: the file changed while it was read.
    """
    part = base.parts.get(component)
    if part is None:
        found = ", ".join(base.parts)
        raise CheckpointError(
            f"{base.path}: expected a {component} in it, found {found}; name a checkpoint that has all parts"
        )
    names = [name for name in header.tensors if name.startswith(part.prefix)]
    tensors = {name: read_tensor(header, name, dtype) for name in names}
    try:
        with quiet():  # it warns of modules to be kept in float32, and names none
            model = kind.from_single_file(
                tensors, config=str(CONFIGS / config), torch_dtype=dtype, local_files_only=True, **settings
            )
    except NotImplementedError:  # torch's for tensors that were left without numbers
        raise unfit(base, component, "tensors missing") from None
    except (ValueError, KeyError, AttributeError, RuntimeError, IndexError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise unfit(base, component, f"{type(error).__name__}: {reason}") from None
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise unfit(base, component, "tensors missing")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Let diffusers give no warnings."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def read_tensor(header: Header, name: str, dtype: torch.dtype) -> Tensor:
    """Read a tensor in a dtype.

    Raises:
        CheckpointError: it is stored as something else than floats of at least 16 bits, which may need scales.
        FileError: the file changed while it was read.
    """
    if header.tensors[name].dtype not in FLOATS:
        raise CheckpointError(
            f"{header.path}: tensor {printable(name)}: expected {', '.join(FLOATS)}, found {header.tensors[name].dtype}; "
            "name a checkpoint in float16"
        )
    return header.load([name])[name].to(dtype)


def unfit(base: BaseModel, component: str, found: str) -> CheckpointError:
    """The error of a part that does not have the sizes of its family."""
    return CheckpointError(
        f"{base.path}: expected the {component} of {base.family}, found {found}; name another checkpoint, or a folder of diffusers"
    )


def one_file(path: Path | str, family: str) -> str:
    """Why a checkpoint in one file is not loaded, and how to mend that."""
    return (
        f"{path}: expected a folder of diffusers of {family}, found a checkpoint in one file, which is loaded for "
        f"{', '.join(RECIPES)} only; download the model as a folder, and `loradex base add` that"
    )
