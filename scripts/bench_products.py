"""``python -m scripts.bench_products``: LoKr and LoHa files, beside plain LoRAs of the same size, in one run.

For each file: processor time of all that indexing computes from its weights, memory beyond that of an empty process,
and how many times the time of a LoRA with as many numbers. Nothing is downloaded; weights are drawn from a seed.
"""

import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from time import process_time

import torch
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.fingerprint import Fingerprint
from loradex.retrieval.lora import LoraFile
from scripts.bench_zoo import run_in_process

Part = Callable[[int, int], dict[str, Tensor]]  # the tensors of a layer (out, in), by their endings


def normal(*shape: int) -> Tensor:
    """Small numbers in half precision."""
    return (torch.randn(*shape) * 0.02).half()


def lora(rank: int, out: int, width: int) -> dict[str, Tensor]:
    """A plain LoRA."""
    return {"lora_down.weight": normal(rank, width), "lora_up.weight": normal(out, rank)}


def lokr(factor: int, out: int, width: int) -> dict[str, Tensor]:
    """A LoKr of two whole factors."""
    return {"lokr_w1": normal(factor, factor), "lokr_w2": normal(out // factor, width // factor)}


def loha(rank: int, out: int, width: int) -> dict[str, Tensor]:
    """A LoHa."""
    sides = {"a": (out, rank), "b": (rank, width)}
    return {f"hada_w{half}_{side}": normal(*shape) for half in "12" for side, shape in sides.items()}


def flux_layers() -> Iterator[tuple[str, int, int]]:
    """Attention of Flux.1's double blocks."""
    for block in range(19):
        for name in ("to_q", "to_k", "to_v", "to_out_0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"):
            yield f"lora_transformer_transformer_blocks_{block}_attn_{name}", 3072, 3072


def sdxl_layers() -> Iterator[tuple[str, int, int]]:
    """The transformers of SDXL's middle block and of one block beside it."""
    for place in ("mid_block_attentions_0", "down_blocks_2_attentions_0"):
        for block in range(10):
            prefix = f"lora_unet_{place}_transformer_blocks_{block}"
            for name, width in (
                ("attn1_to_q", 1280),
                ("attn1_to_out_0", 1280),
                ("attn2_to_k", 2048),
                ("attn2_to_v", 2048),
            ):
                yield f"{prefix}_{name}", 1280, width
            yield f"{prefix}_ff_net_0_proj", 10_240, 1280
            yield f"{prefix}_ff_net_2", 1280, 5120


MODELS = {"flux": flux_layers, "sdxl": sdxl_layers}
PARTS: Mapping[str, Part] = {
    "lokr 8": partial(lokr, 8),
    "lokr 16": partial(lokr, 16),
    **{f"loha {rank}": partial(loha, rank) for rank in (4, 8, 16, 32, 64)},
}


def measure(path: Path) -> dict[str, float]:
    """Read a file as indexing does, without experts."""
    Fingerprint.of([next(LoraFile.open(path).iter_updates())])  # so that libraries are loaded
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, process_time()
    file = LoraFile.open(path)
    with torch.inference_mode():
        Fingerprint.of(file.iter_updates())
    _ = file.id
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": process_time() - started, "memory_mb": (peak - before) / 1024}


def bench(layers: Callable[[], Iterator[tuple[str, int, int]]], part: Part, folder: Path) -> dict[str, float]:
    """A file of these parts, and a LoRA of about as many numbers."""
    sizes = list(layers())
    numbers = sum(tensor.numel() for _, out, width in sizes for tensor in part(out, width).values())
    rank = max(1, round(numbers / sum(out + width for _, out, width in sizes)))
    results, kinds = [], list[Part]([part, partial(lora, rank)])
    for number, kind in enumerate(kinds):
        tensors = {f"{name}.{end}": t for name, out, width in sizes for end, t in kind(out, width).items()}
        save_file(tensors, path := folder / f"{number}.safetensors")
        results.append(run_in_process(partial(measure, path)))
    return {
        **results[0],
        "file_mb": 2 * numbers / 1e6,
        "lora_seconds": results[1]["seconds"],
        "times_as_long": results[0]["seconds"] / results[1]["seconds"],
    }


def main() -> None:
    """Measure every kind of file, or those whose names are given, such as "flux lokr 16"."""
    torch.manual_seed(0)
    cases = {f"{model} {kind}": (layers, part) for model, layers in MODELS.items() for kind, part in PARTS.items()}
    for name in sys.argv[1:] or cases:
        with tempfile.TemporaryDirectory() as folder:
            result = bench(*cases[name], Path(folder))
        sys.stdout.write(json.dumps({"file": name} | {key: round(value, 2) for key, value in result.items()}) + "\n")


if __name__ == "__main__":
    main()
