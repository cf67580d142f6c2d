"""The noise that a model is trained to take away, by its scheduler in diffusers."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

EPSILON: Final = "epsilon"
V: Final = "v_prediction"
SAMPLE: Final = "sample"


class NoiseSchedule(ABC):
    """How latents are mixed with noise, and what is to be predicted of both."""

    @abstractmethod
    def mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Add noise to latents.

        Args:
            latents: (n, ...), float32.
            noise: likewise.
            times: (n,), shares of the schedule in [0, 1); 0 is the least noise.

        Returns:
            The noisy latents, the timesteps (n,) that the model is given, and what it is to predict.
        """


@dataclass(frozen=True, slots=True)
class Diffusion(NoiseSchedule):
    """Diffusion in discrete steps (Ho et al. 2020), predicting noise, v (Salimans and Ho 2022) or latents.

    Attributes:
        kept: (steps,), the share of the latents' variance that each step keeps.
        prediction: ``epsilon``, ``v_prediction`` or ``sample``.
    """

    kept: Tensor
    prediction: str

    def mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keep a share of the latents' variance; timesteps are whole numbers."""
        steps = step_numbers(times, len(self.kept))
        share = beside(self.kept.to(latents.device)[steps], latents)
        signal, spread = share.sqrt(), (1 - share).sqrt()
        noisy = signal * latents + spread * noise
        target = {EPSILON: noise, V: signal * noise - spread * latents, SAMPLE: latents}[self.prediction]
        return noisy, steps, target


@dataclass(frozen=True, slots=True)
class Flow(NoiseSchedule):
    """Rectified flow (Liu et al. 2023; Esser et al. 2024): straight lines to the noise, predicting their direction.

    Attributes:
        sigmas: (steps,), the share of noise at each step, from the least, shifted as the scheduler shifts it.
        steps_scale: timesteps are shares of noise times this.
    """

    sigmas: Tensor
    steps_scale: int

    def mix(self, latents: Tensor, noise: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Go along the line; timesteps are not whole."""
        sigmas = self.sigmas.to(latents.device)[step_numbers(times, len(self.sigmas))]
        share = beside(sigmas, latents)
        return (1 - share) * latents + share * noise, sigmas * self.steps_scale, noise - latents


def step_numbers(times: Tensor, steps: int) -> Tensor:
    """The steps (n,) that shares of a schedule fall on."""
    return (times * steps).long().clamp(0, steps - 1)


def beside(numbers: Tensor, latents: Tensor) -> Tensor:
    """Numbers (n,) in a shape that is multiplied with latents (n, ...)."""
    return numbers.reshape(-1, *[1] * (latents.ndim - 1))


def schedule_of(scheduler: Any) -> NoiseSchedule | None:
    """The schedule with which a scheduler's model was trained; None if it is of another kind."""
    fresh = type(scheduler).from_config(scheduler.config)  # drawing changes the tables of the one in use
    config = fresh.config
    kept, sigmas = getattr(fresh, "alphas_cumprod", None), getattr(fresh, "sigmas", None)
    if isinstance(kept, Tensor):
        prediction = config.get("prediction_type", EPSILON)
        return Diffusion(kept.float(), prediction) if prediction in (EPSILON, V, SAMPLE) else None
    if type(fresh).__name__.startswith("FlowMatch") and isinstance(sigmas, Tensor):
        steps = config.num_train_timesteps
        return Flow(torch.sort(sigmas[:steps].float()).values, steps)
    return None
