"""``python -m scripts.bench``: speed as ratios within one run, as JSON on stdout. Nothing is downloaded; inputs are made from a seed."""

import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loradex.app.describe.inspection import describe
from loradex.app.paths import MINIATURE
from loradex.app.search.service import Loradex
from loradex.index import Zoo
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.layers import read_layers
from loradex.retrieval.lora.layout import cached_layout
from loradex.retrieval.probex.batched_factors import Factors, bilinear
from scripts.bench_experts import bench_embedding, bench_epoch
from scripts.bench_zoo import BATCH, apart, models, times_of

SIDE, RANK, PROBES, MODELS = 1280, 16, 128, 64  # Stable Diffusion 1.5's largest attention layers


def milliseconds(work: Callable[[], Any], repeats: int = 7) -> float:
    """The median time of a piece of work, warm."""
    work()
    times = []
    for _ in range(repeats):
        started = perf_counter()
        work()
        times.append(1e3 * (perf_counter() - started))
    return statistics.median(times)


def bench_probing() -> dict[str, float]:
    """relu-free probe responses of 64 updates: from factors, and from dW as the papers' code makes it."""
    torch.manual_seed(0)
    factors = Factors(torch.randn(MODELS, RANK, SIDE), torch.randn(MODELS, SIDE, RANK))
    projection, probes = torch.randn(PROBES, SIDE), torch.randn(SIDE, PROBES)
    thin = milliseconds(lambda: bilinear(factors, projection, probes))
    dense = milliseconds(lambda: projection @ ((factors.up @ factors.down) @ probes), repeats=3)
    return {"factors_ms": thin, "dense_ms": dense, "times_faster": dense / thin}


def bench_reading(layers: int = 128) -> dict[str, float]:
    """One layer of a LoRA file of Stable Diffusion 1.5's size: its header and two tensors, against loading all of it."""
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

        one = milliseconds(lambda: LoraFile.open(path).updates([names[7].removeprefix("unet.")]))
        whole = milliseconds(load_all)
        return {
            "one_layer_ms": one,
            "all_layers_ms": whole,
            "times_faster": whole / one,
            "file_mb": path.stat().st_size / 1e6,
        }


def bench_inspecting(layouts: int = 10, files: int = 4, passes: int = 25) -> dict[str, float]:
    """1,000 inspections of files of 13 MB, warm, against loading them with safetensors: ten layouts of four files, half of them kohya's with alphas."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{layout}-{number}.safetensors") for number in range(files) for layout in range(layouts)]
        for number, path in enumerate(paths):
            kohya = number % 2 == 0
            rank = (32 if kohya else 16) + number % layouts // 2
            save_file(stable_diffusion_lora(rank, kohya), path, metadata={"ss_output_name": path.stem})

        def header(path: Path) -> object:
            lora = LoraFile.open(path)
            return lora.family, lora.ranks, lora.facts, lora.problems

        def new_layout(path: Path) -> object:
            cached_layout.cache_clear()
            read_layers.cache_clear()
            return header(path)

        works: dict[str, Callable[[Path], Any]] = {
            "load": load_file,
            "header": header,
            "header_of_a_new_layout": new_layout,
            "header_and_alphas": lambda path: describe(LoraFile.open(path), hashes=False),
        }
        times = {
            name: milliseconds(lambda work=work: [work(path) for path in paths], repeats=passes) / len(paths)  # type: ignore[misc]
            for name, work in works.items()
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
    """A text's way to ten hits in a zoo of the shipped space, words, folding and probabilities included, and encoding a text alone, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        loradex = Loradex(Path(folder, "zoo"), MINIATURE / "encoder")
        encoder, rng = loradex.encoder, np.random.default_rng(0)
        labels = encoder.default_labels.vectors.numpy()
        with Zoo.create(loradex.zoo_folder, encoder.space.name, encoder.space.dim) as zoo:
            for start in range(0, count, BATCH):
                near = (
                    labels[rng.integers(len(labels), size=BATCH)] + rng.standard_normal((BATCH, zoo.dim)) / zoo.dim**0.5
                )
                some = [
                    replace(model, family="mini-a") for model in models(start, BATCH)
                ]  # for which there are probabilities
                zoo.add(
                    some, near.astype(np.float32), {f"{i:020x}": rng.bytes(1032) for i in range(start, start + BATCH)}
                )
            zoo.save_engine("auto")
        loradex.search("warm up")
        words = [word["word"] for word in json.loads((MINIATURE / "keywords.json").read_text())][:300]
        whole, alone = list[float](), list[float]()
        for word in words:  # each text is new to the encoder's memory
            whole += times_of(lambda _, word=word: loradex.search(f"{word} one"), 0)  # type: ignore[misc]
            alone += times_of(lambda _, word=word: encoder.encode_texts([f"{word} two"]), 0)  # type: ignore[misc]
        return {
            "search_ms": statistics.median(whole),
            "text_ms": statistics.median(alone),
            "ratio": statistics.median(whole) / statistics.median(alone),
        }


def as_served(work: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The result of some work in a process with the settings of ``loradex serve``."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    found: dict[str, float] = apart(work)
    return found


def main() -> None:
    """Run every benchmark."""
    document = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    benches = {
        "probing": bench_probing,
        "reading": bench_reading,
        "inspecting": bench_inspecting,
        "text_to_hits": lambda: as_served(bench_text_to_hits),
    }
    benches |= {"embedding": bench_embedding, "epoch": bench_epoch}
    results = {name: {key: round(value, 3) for key, value in bench().items()} for name, bench in benches.items()}
    sys.stdout.write(json.dumps(document | results, indent=1) + "\n")


if __name__ == "__main__":
    main()
