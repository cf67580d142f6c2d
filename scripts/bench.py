"""``python -m scripts.bench``: measures speed as ratios within one run and prints JSON.

Nothing is downloaded; inputs are generated from a seed.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loradex.app.describe.inspection import inspect_lora
from loradex.app.paths import MINIATURE
from loradex.app.search.service import Loradex
from loradex.index import Zoo
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.layers import parse_layers
from loradex.retrieval.lora.layout import cached_layout
from loradex.retrieval.probex.batched_factors import Factors, bilinear
from scripts.bench_cold import bench_cold
from scripts.bench_experts import bench_embedding, bench_epoch
from scripts.bench_zoo import BATCH, make_models, run_in_process, time_call

WIDTH, RANK, PROBES, MODELS = 1280, 16, 128, 64  # Stable Diffusion 1.5's largest attention layers


def median_milliseconds(function: Callable[[], Any], repeats: int = 7) -> float:
    """Median time of a call, after one warm-up call."""
    function()
    times = []
    for _ in range(repeats):
        started = perf_counter()
        function()
        times.append(1e3 * (perf_counter() - started))
    return statistics.median(times)


def bench_probing() -> dict[str, float]:
    """Probe responses (without ReLU) of 64 updates: from factors, and from dense dW as in the papers' code."""
    torch.manual_seed(0)
    factors = Factors(torch.randn(MODELS, RANK, WIDTH), torch.randn(MODELS, WIDTH, RANK))
    projection, probes = torch.randn(PROBES, WIDTH), torch.randn(WIDTH, PROBES)
    from_factors = median_milliseconds(lambda: bilinear(factors, projection, probes))
    dense = median_milliseconds(lambda: projection @ ((factors.up @ factors.down) @ probes), repeats=3)
    return {"factors_ms": from_factors, "dense_ms": dense, "times_faster": dense / from_factors}


def bench_reading(layers: int = 128) -> dict[str, float]:
    """Reading one layer of a LoRA file for Stable Diffusion 1.5 (header and two tensors), against loading all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lora.safetensors")
        names = [f"unet.down_blocks.2.attentions.{i}.transformer_blocks.0.attn2.to_q" for i in range(layers)]
        tensors = {
            f"{name}.lora.{part}.weight": torch.randn(shape)
            for name in names
            for part, shape in (("down", (RANK, 768)), ("up", (768, RANK)))
        }
        save_file(tensors, path)

        def load_all() -> None:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - no mapping
                    file.get_tensor(name).sum()

        one_layer = median_milliseconds(lambda: LoraFile.open(path).updates([names[7].removeprefix("unet.")]))
        all_layers = median_milliseconds(load_all)
        return {
            "one_layer_ms": one_layer,
            "all_layers_ms": all_layers,
            "times_faster": all_layers / one_layer,
            "file_mb": path.stat().st_size / 1e6,
        }


def bench_inspecting(layouts: int = 10, files: int = 4, passes: int = 25) -> dict[str, float]:
    """1,000 inspections of cached files of 13 MB, against loading them with safetensors.

    Ten layouts of four files; half of the files are kohya's, with alphas.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{layout}-{number}.safetensors") for number in range(files) for layout in range(layouts)]
        for number, path in enumerate(paths):
            kohya = number % 2 == 0
            rank = (32 if kohya else 16) + number % layouts // 2
            save_file(stable_diffusion_lora(rank, kohya), path, metadata={"ss_output_name": path.stem})

        def read_header(path: Path) -> object:
            lora = LoraFile.open(path)
            return lora.family, lora.ranks, lora.facts, lora.problems

        def read_header_uncached(path: Path) -> object:
            cached_layout.cache_clear()
            parse_layers.cache_clear()
            return read_header(path)

        functions: dict[str, Callable[[Path], Any]] = {
            "load": load_file,
            "header": read_header,
            "header_of_a_new_layout": read_header_uncached,
            "header_and_alphas": lambda path: inspect_lora(LoraFile.open(path), hashes=False),
        }

        def for_each_path(function: Callable[[Path], Any]) -> list[Any]:
            return [function(path) for path in paths]

        times = {
            name: median_milliseconds(partial(for_each_path, function), repeats=passes) / len(paths)
            for name, function in functions.items()
        }
        faster = {f"{name}_times_faster": times["load"] / time for name, time in times.items() if name != "load"}
        return (
            {f"{name}_ms": time for name, time in times.items()}
            | faster
            | {"file_mb": statistics.mean(path.stat().st_size for path in paths) / 1e6}
        )


def stable_diffusion_lora(rank: int, kohya: bool) -> dict[str, torch.Tensor]:
    """A LoRA of all attention layers of Stable Diffusion 1.5's U-Net, in half precision for kohya."""
    tensors: dict[str, torch.Tensor] = {}
    blocks = {**{f"down_blocks.{b}.attentions.{a}": b for b in range(3) for a in range(2)}, "mid_block.attentions.0": 2}
    blocks |= {f"up_blocks.{b}.attentions.{a}": 3 - b for b in range(1, 4) for a in range(3)}
    for block, level in blocks.items():
        width = (320, 640, 1280)[level]
        for name in (f"attn{i}.to_{part}" for i in (1, 2) for part in ("q", "k", "v", "out.0")):
            shapes = (rank, 768 if name in ("attn2.to_k", "attn2.to_v") else width), (width, rank)
            layer = f"{block}.transformer_blocks.0.{name}"
            if kohya:
                module = "lora_unet_" + layer.replace(".", "_")
                tensors |= {
                    f"{module}.lora_{half}.weight": torch.randn(shape).half()
                    for half, shape in zip(("down", "up"), shapes, strict=True)
                }
                tensors[f"{module}.alpha"] = torch.tensor(float(rank)).half()
            else:
                tensors |= {
                    f"unet.{layer}.lora.{half}.weight": torch.randn(shape)
                    for half, shape in zip(("down", "up"), shapes, strict=True)
                }
    return tensors


def bench_text_to_hits(count: int = 100_000) -> dict[str, float]:
    """A search by text for ten hits, and encoding a text alone, in turn.

    The zoo is in the shipped space; a search includes matches in metadata, folding of look-alikes and probabilities.
    """
    with tempfile.TemporaryDirectory() as folder:
        loradex = Loradex(Path(folder, "zoo"), MINIATURE / "encoder")
        encoder, rng = loradex.encoder, np.random.default_rng(0)
        labels = encoder.default_labels.vectors.numpy()
        with Zoo.create(loradex.zoo_folder, encoder.space.name, encoder.space.dim) as zoo:
            for start in range(0, count, BATCH):
                noisy_labels = (
                    labels[rng.integers(len(labels), size=BATCH)] + rng.standard_normal((BATCH, zoo.dim)) / zoo.dim**0.5
                )
                # A family for which there are calibrated probabilities.
                batch = [replace(model, family="mini-a") for model in make_models(start, BATCH)]
                zoo.add(
                    batch,
                    noisy_labels.astype(np.float32),
                    {f"{i:020x}": rng.bytes(1032) for i in range(start, start + BATCH)},
                )
            zoo.save_engine("auto")
        loradex.search("warm up")
        words = [word["word"] for word in json.loads((MINIATURE / "keywords.json").read_text())][:300]
        search_times, text_times = list[float](), list[float]()
        for word in words:  # no text repeats, as the encoder caches them
            search_times += time_call(lambda _, word=word: loradex.search(f"{word} one"), 0)  # type: ignore[misc]
            text_times += time_call(lambda _, word=word: encoder.encode_texts([f"{word} two"]), 0)  # type: ignore[misc]
        return {
            "search_ms": statistics.median(search_times),
            "text_ms": statistics.median(text_times),
            "ratio": statistics.median(search_times) / statistics.median(text_times),
        }


def run_as_served(bench: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run a benchmark in a process with the settings of ``loradex serve``."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    result: dict[str, float] = run_in_process(bench)
    return result


def main() -> None:
    """Run every benchmark."""
    document = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    benchmarks = {
        "probing": bench_probing,
        "reading": bench_reading,
        "inspecting": bench_inspecting,
        "text_to_hits": lambda: run_as_served(bench_text_to_hits),
    }
    benchmarks |= {"cold": bench_cold, "embedding": bench_embedding, "epoch": bench_epoch}
    results = {
        name: {key: round(value, 3) for key, value in benchmark().items()} for name, benchmark in benchmarks.items()
    }
    sys.stdout.write(json.dumps(document | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
