"""Base models whose layers have their true names, and LoRAs for them as trainers save them."""

import warnings
from collections.abc import Callable

import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    ChromaTransformer2DModel,
    CogVideoXTransformer3DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HiDreamImageTransformer2DModel,
    HunyuanImageTransformer2DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    Lumina2Transformer2DModel,
    MochiTransformer3DModel,
    PixArtTransformer2DModel,
    QwenImageTransformer2DModel,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    WanTransformer3DModel,
    ZImageTransformer2DModel,
)
from torch import Tensor, nn

FactorsByModule = dict[str, tuple[Tensor, Tensor]]  # (down, up) by module


def sd1_unet(widths: tuple[int, ...] = (32, 64, 64, 64), context: int = 24) -> UNet2DConditionModel:
    return UNet2DConditionModel(block_out_channels=widths, cross_attention_dim=context, norm_num_groups=8)


def sdxl_unet(
    widths: tuple[int, ...] = (32, 64, 64), context: int = 24, depths: tuple[int, ...] = (1, 2, 3)
) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        block_out_channels=widths,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=depths,
        cross_attention_dim=context,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=48,
        norm_num_groups=8,
    )


def wan(layers: int = 2, heads: int = 2) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=12, ffn_dim=32, num_layers=layers, text_dim=16, freq_dim=16
    )


def qwen(layers: int = 2) -> QwenImageTransformer2DModel:
    return QwenImageTransformer2DModel(
        num_layers=layers,
        num_attention_heads=2,
        attention_head_dim=16,
        joint_attention_dim=16,
        axes_dims_rope=(4, 6, 6),
    )


LTX23 = ("gated_attn", "cross_attn_mod", "audio_gated_attn", "audio_cross_attn_mod")
# models with layers of true size, which are built on the meta device
MODELS: dict[str, Callable[[], nn.Module]] = {
    "flux1": lambda: FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True),
    "chroma": lambda: ChromaTransformer2DModel(num_layers=1, num_single_layers=1),
    "flux2": lambda: Flux2Transformer2DModel(num_layers=1, num_single_layers=1),
    "sd3": lambda: SD3Transformer2DModel(num_layers=3, dual_attention_layers=(0,)),
    "qwen-image": lambda: QwenImageTransformer2DModel(num_layers=2),
    "wan": lambda: WanTransformer3DModel(num_layers=2, image_dim=1280, added_kv_proj_dim=5120),
    "z-image": lambda: ZImageTransformer2DModel(n_layers=2),
    "hunyuan-video": lambda: HunyuanVideoTransformer3DModel(num_layers=1, num_single_layers=1, guidance_embeds=True),
    "hunyuan-video-1.5": lambda: HunyuanVideo15Transformer3DModel(num_layers=1),
    "hunyuan-image": lambda: HunyuanImageTransformer2DModel(
        num_layers=1, num_single_layers=1, guidance_embeds=True, use_meanflow=True, text_embed_2_dim=1472
    ),
    "lumina2": lambda: Lumina2Transformer2DModel(num_layers=1),
    "ltx-video": lambda: LTXVideoTransformer3DModel(num_layers=1),
    "ltx-2": lambda: LTX2VideoTransformer3DModel(num_layers=1, **dict.fromkeys(LTX23, True)),
    "pixart": lambda: PixArtTransformer2DModel(num_layers=1, caption_channels=4096, use_additional_conditions=True),
    "sana": lambda: SanaTransformer2DModel(num_layers=1),
    "cogvideox": lambda: CogVideoXTransformer3DModel(num_layers=1),
    "mochi": lambda: MochiTransformer3DModel(num_layers=2),
    "auraflow": lambda: AuraFlowTransformer2DModel(num_mmdit_layers=1, num_single_dit_layers=1),
    "hidream": lambda: HiDreamImageTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        patch_size=2,
        in_channels=16,
        caption_channels=(4096, 4096),
        llama_layers=(31,),
    ),
    "sd1": lambda: sd1_unet((320, 640, 1280, 1280), 768),
    "sd2": lambda: sd1_unet((320, 640, 1280, 1280), 1024),
    "sdxl": lambda: sdxl_unet((320, 640, 1280), 2048, (1, 2, 10)),
}


def meta_model(name: str) -> nn.Module:
    """Build one of ``MODELS`` without memory for its weights."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of diffusers itself
        return MODELS[name]()


def weight_shapes(model: nn.Module) -> dict[str, torch.Size]:
    """The shape of every weight that a LoRA may change, by module."""
    return {
        name: m.weight.shape for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)
    }


def random_factors(shapes: dict[str, torch.Size], rank: int = 2, seed: int = 0) -> FactorsByModule:
    """Random factors for weights of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    factors = {}
    for name, (out, *inside) in shapes.items():
        down, up = torch.randn(rank, *inside, generator=generator), torch.randn(out, rank, generator=generator)
        factors[name] = (down, up.reshape(out, rank, *[1] * (len(inside) - 1)))
    return factors


def lora_tensors(
    factors: FactorsByModule, rename: Callable[[str], str], endings: tuple[str, str], alpha: float | None = None
) -> dict[str, Tensor]:
    """The tensors of a LoRA under a trainer's names, with an alpha for each module if one is given."""
    tensors = {
        rename(name) + ending: tensor
        for name, pair in factors.items()
        for ending, tensor in zip(endings, pair, strict=True)
    }
    return tensors if alpha is None else tensors | {rename(name) + ".alpha": torch.tensor(alpha) for name in factors}


DIFFUSERS = (".lora.down.weight", ".lora.up.weight")
KOHYA = (".lora_down.weight", ".lora_up.weight")
PEFT = (".lora_A.weight", ".lora_B.weight")
