"""Random pipelines of diffusers of each family: of true shapes from the configurations that ship, or tiny."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from loradex.app.drawing.one_file import BETAS, CONFIGS, RECIPES
from loradex.app.drawing.one_file_text import IDENTITY, load_text_tokenizer
from loradex.retrieval.lora.family import UNet
from loradex.retrieval.text_states.families import CLIP_L

BLOCK = 1_000_003  # random numbers that weights repeat; a prime, so that no two rows are equal
ENCODERS = {  # true width, heads, layers of what diffusers' folders have
    "sd1": [(768, 12, 12)],
    "sd2": [(1024, 16, 23)],
    "sdxl": [(768, 12, 12), (1280, 20, 32)],
    "sd3": [(768, 12, 12), (1280, 20, 32)],
}
TINY_ENCODERS = {
    "sd1": [(128, 2, 2)],
    "sd2": [(192, 3, 3)],
    "sdxl": [(128, 2, 2), (192, 3, 3)],
    "sd3": [(128, 2, 2), (192, 3, 3)],
}
SD3_MEDIUM = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
TINY_SD3 = {
    "num_layers": 2,
    "num_attention_heads": 2,
    "caption_projection_dim": 128,
    "joint_attention_dim": 384,
    "pooled_projection_dim": 320,
    "pos_embed_max_size": 6,
    "in_channels": 4,
    "out_channels": 4,
    "sample_size": 8,
}
TINY_UNET = {
    "sample_size": 8,
    "block_out_channels": [32, 64],
    "layers_per_block": 2,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
TINY_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 128},
    "sd2": {"cross_attention_dim": 192, "use_linear_projection": True},
    "sdxl": {
        "cross_attention_dim": 320,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 192 + 6 * 8,
    },
}
TINY_VAE = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
}
TINY_VAE_SD3 = {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.5, "shift_factor": 0.06}
TINY_FAMILIES = {
    name: UNet(settings["cross_attention_dim"], (32, 64), (1, 0), 1) for name, settings in TINY_UNETS.items()
}


def write_tiny_configs(folder: Path) -> Path:
    """Configurations as those that ship, of tiny models."""
    for name, settings in TINY_UNETS.items():
        save_config(UNet2DConditionModel, {**TINY_UNET, **settings}, folder / f"unet-{name}.json")
    for name, settings in (("vae-sd", {}), ("vae-sd3", TINY_VAE_SD3)):
        save_config(AutoencoderKL, {**TINY_VAE, **settings}, folder / f"{name}.json")
    save_config(SD3Transformer2DModel, TINY_SD3, folder / "transformer-sd3.json")
    return folder


def save_config(kind: Any, settings: dict[str, Any], path: Path) -> None:
    with torch.device("meta"):
        kind(**settings).to_json_file(path)


def text_encoder(sizes: tuple[int, int, int], activation: str, projected: bool) -> Any:
    width, heads, layers = sizes
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    config = CLIPTextConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=layers,
        intermediate_size=4 * width,
        projection_dim=width,
        hidden_act=activation,
    )
    return kind(config).eval()


def random_pipeline(family: str, configs: Path = CONFIGS, dtype: torch.dtype = torch.float32, **scheduler: Any) -> Any:
    """A pipeline as one file of ``family`` gives one.

    Args:
        family: one of ``RECIPES``.
        configs: tiny if they are not those that ship.
        dtype: of the weights of a true model.
        scheduler: settings that differ.
    """
    recipe, tiny = RECIPES[family], configs != CONFIGS
    torch.manual_seed(0)
    with nullcontext() if tiny else init_empty_weights():
        kind, config = recipe.denoiser
        sizes = (TINY_SD3 if tiny else SD3_MEDIUM) if family == "sd3" else {}
        denoiser = kind.from_config({**kind.load_config(configs / config), **sizes}).eval()
        vae = AutoencoderKL.from_config({**AutoencoderKL.load_config(configs / recipe.vae), **recipe.vae_settings})
        components = {"transformer" if family == "sd3" else "unet": denoiser, "vae": vae.eval()}
        for facts, encoder_sizes in zip(recipe.encoders, (TINY_ENCODERS if tiny else ENCODERS)[family], strict=True):
            encoder = text_encoder(encoder_sizes, facts.activation, facts.component in recipe.projected)
            components[facts.component] = encoder
    for component in () if tiny else components.values():
        fill(component, dtype)
    for facts in recipe.encoders:
        if recipe.projected.get(facts.component) == IDENTITY:
            torch.nn.init.eye_(components[facts.component].text_projection.weight)
        components[facts.component.replace("text_encoder", "tokenizer")] = load_text_tokenizer(facts, 77)
    if family == "sd3":  # zeros at first, so that no picture would come to the output
        torch.nn.init.normal_(denoiser.proj_out.weight, std=0.1)
    scheduler_kind, settings = recipe.scheduler
    components["scheduler"] = scheduler_kind(**{**settings, **scheduler})
    return recipe.pipeline(**components, **recipe.extra)


def fill(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Give the weights of a model without numbers some: those of true models would take minutes to be drawn."""
    block = torch.randn(BLOCK).to(dtype)
    state = dict(model.state_dict())
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            numbers = block.repeat(-(-parameter.numel() // BLOCK))[: parameter.numel()].reshape(parameter.shape)
            state[name] = numbers.mul_(parameter[0].numel() ** -0.5)
        else:
            state[name] = torch.full(parameter.shape, float(name.endswith("weight")), dtype=dtype)
    model.load_state_dict(state, assign=True)
    model.to(dtype)


def tiny_flux(guidance: bool) -> Any:
    """A pipeline of Flux; ``guidance`` as the dev version has it."""
    torch.manual_seed(0)
    words = ["<pad>", "</s>", "<unk>", "▁", *(f"▁{word}" for word in ("a", "cat", "dog", "red"))]
    tokenizer = T5Tokenizer(vocab=[(word, -float(number)) for number, word in enumerate(words)], extra_ids=0)
    tokenizer.model_max_length = 512
    t5 = T5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=32, num_layers=2, num_heads=4)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=128,
        guidance_embeds=guidance,
        axes_dims_rope=(4, 6, 6),
    )
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=AutoencoderKL(**TINY_VAE, shift_factor=0.1, scaling_factor=0.4).eval(),
        text_encoder=text_encoder((128, 2, 2), "quick_gelu", projected=False),
        tokenizer=load_text_tokenizer(CLIP_L, 77),
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=tokenizer,
        transformer=transformer.eval(),
    )


def v_scheduler() -> PNDMScheduler:
    """The scheduler of SD 2 at 768 pixels."""
    return PNDMScheduler(**BETAS, skip_prk_steps=True, prediction_type="v_prediction")
