"""What the families of diffusers' models attend to, and how they are called while they are trained.

Each follows diffusers' training script of the family (``examples/text_to_image`` and ``examples/dreambooth``:
``train_text_to_image_lora.py``, ``..._sdxl.py``, ``train_dreambooth_lora_sd3.py``, ``..._flux.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import Tensor

STATES: Final = "states"  # of the text encoders, token by token
POOLED: Final = "pooled"  # of whole texts
FLUX_GUIDANCE: Final = 1.0  # at which a model that takes guidance as an input predicts what it was distilled from
TEXT_TIME: Final = "text_time"  # what SDXL's U-Net calls pooled states beside sizes and crops
TIME_IDS: Final = 6  # numbers: original height and width, the crop's top and left, height and width

PromptTensors = dict[str, Tensor]


class Family(ABC):
    """How one family is called.

    Attributes:
        latent_channels: how many of the VAE's the model takes for one of its input's.
    """

    latent_channels: int = 1

    @abstractmethod
    def encode(self, pipeline: Any, prompts: Sequence[str], device: torch.device) -> PromptTensors:
        """What the model attends to, by name, each with a leading dimension of prompts."""

    @abstractmethod
    def predict(self, pipeline: Any, module: Any, noisy: Tensor, timesteps: Tensor, prompts: PromptTensors) -> Tensor:
        """What the model predicts for noisy latents (n, channels, height, width), in their shape.

        Args:
            pipeline: of the model.
            module: the U-Net or transformer.
            noisy: in the model's dtype.
            timesteps: (n,), of the scheduler's scale, which ends at 1,000.
            prompts: of ``encode``, in the model's dtype.
        """

    def check(self, pipeline: Any, module: Any) -> str:
        """What is not as this family has it; "" if all is."""
        return ""


class UNetFamily(Family):
    """SD 1 and SD 2."""

    def encode(self, pipeline: Any, prompts: Sequence[str], device: torch.device) -> PromptTensors:
        """The states of the text encoder."""
        states, _ = pipeline.encode_prompt(list(prompts), device, 1, False)
        return {STATES: states}

    def predict(self, pipeline: Any, module: Any, noisy: Tensor, timesteps: Tensor, prompts: PromptTensors) -> Tensor:
        """Call the U-Net."""
        return module(noisy, timesteps, prompts[STATES], return_dict=False)[0]


class SDXLFamily(Family):
    """SDXL: pooled states, and sizes as of pictures that were not cropped."""

    def encode(self, pipeline: Any, prompts: Sequence[str], device: torch.device) -> PromptTensors:
        """The states of both text encoders, and the pooled ones of the second."""
        states, _, pooled, _ = pipeline.encode_prompt(list(prompts), device=device, do_classifier_free_guidance=False)
        return {STATES: states, POOLED: pooled}

    def predict(self, pipeline: Any, module: Any, noisy: Tensor, timesteps: Tensor, prompts: PromptTensors) -> Tensor:
        """Call the U-Net."""
        height, width = (side * pipeline.vae_scale_factor for side in noisy.shape[-2:])
        sizes = noisy.new_tensor([height, width, 0, 0, height, width]).expand(len(noisy), -1)
        added = {"text_embeds": prompts[POOLED], "time_ids": sizes}
        return module(noisy, timesteps, prompts[STATES], added_cond_kwargs=added, return_dict=False)[0]

    def check(self, pipeline: Any, module: Any) -> str:
        """Refuse models that take other numbers than sizes and crops, such as the refiner."""
        if pipeline.components.get("text_encoder_2") is None or pipeline.components.get("text_encoder") is None:
            return "a U-Net of SDXL with one text encoder"
        pooled = pipeline.text_encoder_2.config.projection_dim
        numbers = (module.add_embedding.linear_1.in_features - pooled) // module.config.addition_time_embed_dim
        return "" if numbers == TIME_IDS else f"a U-Net that takes {numbers} numbers beside its pooled states"


class SD3Family(Family):
    """SD 3 and 3.5."""

    def encode(self, pipeline: Any, prompts: Sequence[str], device: torch.device) -> PromptTensors:
        """The states of all text encoders one after the other (zeros for T5 if it is not there), and pooled ones."""
        texts = list(prompts)
        states, _, pooled, _ = pipeline.encode_prompt(
            texts, texts, texts, device=device, do_classifier_free_guidance=False
        )
        return {STATES: states, POOLED: pooled}

    def predict(self, pipeline: Any, module: Any, noisy: Tensor, timesteps: Tensor, prompts: PromptTensors) -> Tensor:
        """Call the transformer."""
        return module(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=prompts[STATES],
            pooled_projections=prompts[POOLED],
            return_dict=False,
        )[0]


class FluxFamily(Family):
    """Flux 1: latents are packed, four neighbours to a token."""

    latent_channels = 4

    def encode(self, pipeline: Any, prompts: Sequence[str], device: torch.device) -> PromptTensors:
        """The states of T5, and the pooled ones of CLIP."""
        states, pooled, _ = pipeline.encode_prompt(list(prompts), prompt_2=None, device=device)
        return {STATES: states, POOLED: pooled}

    def predict(self, pipeline: Any, module: Any, noisy: Tensor, timesteps: Tensor, prompts: PromptTensors) -> Tensor:
        """Call the transformer."""
        count, channels, height, width = noisy.shape
        packed = FluxPipeline._pack_latents(noisy, count, channels, height, width)
        places = FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, noisy.dtype)
        guidance = noisy.new_full((count,), FLUX_GUIDANCE) if module.config.guidance_embeds else None
        predicted = module(
            hidden_states=packed,
            timestep=timesteps / 1000,
            guidance=guidance,
            pooled_projections=prompts[POOLED],
            encoder_hidden_states=prompts[STATES],
            txt_ids=noisy.new_zeros(prompts[STATES].shape[1], 3),
            img_ids=places,
            return_dict=False,
        )[0]
        factor = pipeline.vae_scale_factor
        return FluxPipeline._unpack_latents(predicted, height * factor, width * factor, factor)


def family_of(module: Any) -> Family | None:
    """The family of a U-Net or transformer; None if it is not known how that is called."""
    if isinstance(module, UNet2DConditionModel):
        kinds = {None: UNetFamily, TEXT_TIME: SDXLFamily}
        kind = kinds.get(module.config.addition_embed_type)
        return kind() if kind and module.config.class_embed_type is None else None
    kinds_of_transformers = {SD3Transformer2DModel: SD3Family, FluxTransformer2DModel: FluxFamily}
    return next((kind() for known, kind in kinds_of_transformers.items() if isinstance(module, known)), None)
