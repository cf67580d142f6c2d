"""Random base models of true shapes, as a folder of diffusers and in one file, and what one sample of them costs.

    python -m tests.app.growing.base_shapes make FAMILY FOLDER
    python -m tests.app.growing.base_shapes time PATH [SIZE] [DTYPE] [DEVICE]

``make`` writes FOLDER/FAMILY and FOLDER/FAMILY.safetensors of sd1, sd2, sdxl or sd3. It needs the disk twice over (SD
1.5: 4.3 GB in all, SDXL: 14 GB, SD 3 without T5: 12 GB), ``time`` the memory of the weights and of a sample.
"""

import resource
import sys
import time
from pathlib import Path

import torch
from PIL import Image

from loradex.app.growing.diffusers_denoiser import DiffusersDenoiser
from tests.app.drawing.original_layout import save_one_file
from tests.app.drawing.random_pipelines import random_pipeline


def make(family: str, folder: Path) -> None:
    """Write a model with random weights in half precision: float16 for SD 1 and 2, else bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe = random_pipeline(family, dtype=torch.float16 if family in ("sd1", "sd2") else torch.bfloat16)
    save_one_file(pipe, family, folder / f"{family}.safetensors")
    pipe.save_pretrained(folder / family, max_shard_size="100GB")


def time_sample(path: Path, size: int | None, dtype: torch.dtype | None, device: str) -> None:
    """Load a model, encode a picture and a prompt, and take the gradients of one sample at an attention layer."""
    clock, processor = time.perf_counter(), time.process_time()

    def report(what: str) -> None:
        nonlocal clock, processor
        if device == "cuda":
            torch.cuda.synchronize()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        memory = f"{peak:.1f} GiB" + (
            f", CUDA {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if device == "cuda" else ""
        )
        seconds = f"{time.perf_counter() - clock:.1f} s ({time.process_time() - processor:.1f} s of processors)"
        print(f"{what}: {seconds}, peak so far {memory}", flush=True)  # noqa: T201
        clock, processor = time.perf_counter(), time.process_time()

    report("imports")
    denoiser = DiffusersDenoiser.load(path, device, dtype, size)
    report(f"load {path.name} in {denoiser.dtype}, {denoiser.size} pixels")
    latents = denoiser.encode_pictures([Image.new("RGB", (denoiser.size, denoiser.size), "red")])
    report(f"encode a picture: {tuple(latents.shape)}")
    conditions = denoiser.encode_prompts(["a photo of a cat"])
    report(f"encode a prompt: { {name: tuple(tensor.shape) for name, tensor in conditions.tensors.items()} }")
    denoiser.release_drawing()
    denoiser.release_vae()
    layers = [module for name, module in denoiser.module.named_modules() if name.endswith(("attn1.to_q", "attn.to_q"))]
    gradients: list[float] = []

    def hook(module: torch.nn.Module, inputs: tuple, output: torch.Tensor) -> torch.Tensor:
        with_graph = output + torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
        with_graph.register_hook(lambda gradient: gradients.append(float(gradient.float().norm())))
        return with_graph

    layers[0].register_forward_hook(hook)
    for _ in range(2):
        noise = torch.randn(latents.shape, device=latents.device)
        loss = denoiser.losses(latents, conditions, torch.tensor([0.5]), noise).sum()
        report(f"loss {float(loss.detach()):.3f}")
        loss.backward()
        report(f"backward to the first attention, gradient {gradients[-1]:.2e}")


if __name__ == "__main__":
    command, first, *rest = sys.argv[1:]
    if command == "make":
        make(first, Path(rest[0]))
    else:
        chosen_size = int(rest[0]) if rest and rest[0] != "0" else None
        chosen_dtype = getattr(torch, rest[1]) if len(rest) > 1 and rest[1] != "default" else None
        time_sample(Path(first), chosen_size, chosen_dtype, rest[2] if len(rest) > 2 else "cpu")
