"""A base model as growing sees it: a denoiser with its training loss, which also draws."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a denoiser attends to besides the noisy pictures.

    Attributes:
        tensors: by name, each with a leading dimension of prompts.
    """

    tensors: dict[str, Tensor]

    def select(self, rows: Tensor) -> "Conditions":
        """The conditions of some prompts, in the order of ``rows`` (n,)."""
        return Conditions({name: tensor[rows.to(tensor.device)] for name, tensor in self.tensors.items()})


class Denoiser(ABC):
    """A base model with its denoising loss.

    Attributes:
        module: the U-Net or transformer, frozen; its modules are named as LoRA files name their layers.
        size: the side in pixels of the pictures that it takes.
    """

    module: nn.Module
    size: int

    @abstractmethod
    def encode_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Latents (n, ...) of pictures, on the denoiser's device, scaled as it takes them."""

    @abstractmethod
    def encode_prompts(self, prompts: Sequence[str]) -> Conditions:
        """The conditions of some prompts."""

    @abstractmethod
    def losses(self, latents: Tensor, conditions: Conditions, times: Tensor, noise: Tensor) -> Tensor:
        """The loss (n,) with which this family is trained, differentiable.

        Args:
            latents: (n, ...), of ``encode_pictures``.
            conditions: of the n samples.
            times: (n,), shares of the noise schedule in [0, 1); 0 is the least noise.
            noise: standard normal, of the shape of ``latents``.
        """

    @abstractmethod
    def draw(
        self, prompts: Sequence[str], seeds: Sequence[int], on_share: Callable[[float], None]
    ) -> list[Image.Image]:
        """Draw one picture for each prompt, each from its own seed.

        ``on_share`` is called after each denoising step with the share of all that is done.
        """

    def release_drawing(self) -> None:  # noqa: B027 - most have nothing to free
        """Free what is needed to draw and to encode prompts, where that is much memory; neither works from now on."""
