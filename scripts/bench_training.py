"""Time and memory of ``loradex train`` on thousands of LoRAs of SD 1.5's size, in a process of its own.

    python -m scripts.bench_training [FILES ...]

Files are hard links to some random templates of ranks 4 and 8 with all 128 attention layers, so the disk holds few and
serves them from memory. Labels are invented: this measures the machine's work, not what an expert learns.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import torch
from safetensors.torch import save_file

from loradex.app.experts.lora_training import train_lora_expert
from loradex.app.experts.training_options import TrainOptions
from scripts.bench_zoo import run_in_process

TEMPLATES: Final = 40
RANKS: Final = (4, 8)
FILES_A_CONCEPT: Final = 5
CONTEXT: Final = 768  # width of SD 1.5's text states
WIDTHS: Final = {"down_blocks": (320, 640, 1280), "up_blocks": (1280, 640, 320)}  # of the blocks with attention
DEFAULT_COUNTS: Final = (200, 1000)


def attention_layers() -> dict[str, tuple[int, int]]:
    """(out, in) of SD 1.5's attention layers by their names in diffusers."""
    places = {"mid_block.attentions.0": 1280}
    for number, width in enumerate(WIDTHS["down_blocks"]):
        places |= {f"down_blocks.{number}.attentions.{place}": width for place in range(2)}
    for number, width in enumerate(WIDTHS["up_blocks"], 1):
        places |= {f"up_blocks.{number}.attentions.{place}": width for place in range(3)}
    layers: dict[str, tuple[int, int]] = {}
    for place, width in places.items():
        for attention, context in (("attn1", width), ("attn2", CONTEXT)):
            prefix = f"{place}.transformer_blocks.0.{attention}"
            layers |= {f"{prefix}.to_q": (width, width), f"{prefix}.to_out.0": (width, width)}
            layers |= {f"{prefix}.to_k": (width, context), f"{prefix}.to_v": (width, context)}
    return layers


def make_files(folder: Path, count: int) -> Path:
    """Write templates, and ``count`` hard links to them with a table of labels, which is returned."""
    torch.manual_seed(0)
    layers, templates = attention_layers(), []
    for number in range(TEMPLATES):
        rank, tensors = RANKS[number % len(RANKS)], dict[str, torch.Tensor]()
        for layer, (out, width) in layers.items():
            tensors[f"unet.{layer}.lora.down.weight"] = torch.randn(rank, width).half()
            tensors[f"unet.{layer}.lora.up.weight"] = (torch.randn(out, rank) / 100).half()
        templates.append(folder / f"template-{number}.bin")
        save_file(tensors, templates[-1])
    loras, lines = folder / "loras", ["file,label"]
    loras.mkdir()
    for number in range(count):
        os.link(templates[number % TEMPLATES], loras / f"{number}.safetensors")
        lines.append(f"{number}.safetensors,concept {number // FILES_A_CONCEPT}")
    table = folder / "labels.csv"
    table.write_text("\n".join(lines))
    return table


def train(folder: Path, table: Path) -> dict[str, Any]:
    """Train an expert in this process; returns seconds and the largest resident memory in GB."""
    steps: dict[str, list[float]] = {}

    def progress(step: str, done: int, total: int) -> None:
        now = perf_counter()
        steps.setdefault(step, [now, now])[1] = now

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = perf_counter()
    answer = train_lora_expert(folder / "loras", folder / "encoder", TrainOptions(labels=table), progress)
    return {
        "layers": len(answer.layers),
        "files": sum(answer.models.values()),
        "seconds": perf_counter() - started,
        "seconds_by_step": {step: last - first for step, (first, last) in steps.items()},
        "memory_gb_before": before * 1024 / 1e9,
        "memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def bench_training(count: int) -> dict[str, Any]:
    """Train on ``count`` files in another process."""
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        measured: dict[str, Any] = run_in_process(train, folder, make_files(folder, count))
        return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", nargs="*", type=int, default=DEFAULT_COUNTS, metavar="FILES")
    for files in parser.parse_args().counts:
        sys.stdout.write(json.dumps(bench_training(files), indent=1) + "\n")
