"""How fast words are read from LoRAs of Stable Diffusion 1.5's size, and in how much memory.

    python -m scripts.bench_words [--loras 40]

The LoRAs (rank 16, all attention layers) and the text states have random numbers and true sizes: 20,000 candidate
words, 768 wide. Reading is measured beside reading the same files' updates alone, in turn, in one process.
"""

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Final

import torch
from safetensors.torch import save_file

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.words.captions import compare_openings, grow_caption
from loradex.retrieval.words.cross_attention import LAYERS, read_keys_and_values
from loradex.retrieval.words.likelihood import CommonStates
from loradex.retrieval.words.prompts import TEMPLATES, WORD_POSITIONS, Candidates, Template
from loradex.retrieval.words.reader import COMPARED, TEMPERATURE

WIDTH, RANK, WORDS, POSITIONS = 768, 16, 20_000, 24
BLOCKS: Final = (  # of SD 1.5: place, width, number of transformer blocks
    *((f"down_blocks.{level}", 320 * 2**level, 2) for level in range(3)),
    ("mid_block", 1280, 1),
    *((f"up_blocks.{level}", 1280 >> (level - 1), 3) for level in range(1, 4)),
)


def write_lora(path: Path, seed: int) -> None:
    """Write a random LoRA of all attention layers of SD 1.5 in diffusers' names."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for place, width, count in BLOCKS:
        for number in range(count):
            for attention in "attn1", "attn2":
                for target in "to_q", "to_k", "to_v", "to_out.0":
                    sees_text = attention == "attn2" and target in ("to_k", "to_v")
                    name = f"unet.{place}.attentions.{number}.transformer_blocks.0.{attention}.{target}.lora"
                    down = torch.randn(RANK, WIDTH if sees_text else width, generator=generator)
                    tensors[f"{name}.down.weight"] = down.half()
                    tensors[f"{name}.up.weight"] = (torch.randn(width, RANK, generator=generator) / 100).half()
    save_file(tensors, path)


def random_candidates() -> tuple[CommonStates, tuple[Template, ...], Candidates]:
    """Random states of true sizes."""
    generator = torch.Generator().manual_seed(0)
    common = CommonStates.of(torch.randn(200, POSITIONS, WIDTH, generator=generator))
    templates = tuple(Template(text, torch.randn(4, WIDTH, generator=generator)) for text in TEMPLATES)
    states = torch.empty(len(TEMPLATES), WORDS, WORD_POSITIONS, WIDTH, dtype=torch.float16)
    for part in states:
        part.copy_(torch.randn(WORDS, WORD_POSITIONS, WIDTH, generator=generator))
    words = tuple(f"word{number}" for number in range(WORDS))
    return common, templates, Candidates(words, states[0, :, 1].clone(), states, torch.zeros(WORDS))


def main() -> None:
    """Print files a second with words and without, and the largest memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loras", type=int, default=40)
    count = parser.parse_args().loras
    common, templates, candidates = random_candidates()
    nothing = torch.randn(32, 8, WIDTH)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{number}.safetensors") for number in range(count)]
        for number, path in enumerate(paths):
            write_lora(path, number)
        alone, with_words, further = [], [], []
        for path in paths:
            started = perf_counter()
            lora = LoraFile.open(path)
            lora.updates([name for name in lora.layers if name.endswith(LAYERS)])
            alone.append(perf_counter() - started)
            started = perf_counter()
            layers = common.own_layers(read_keys_and_values(LoraFile.open(path), WIDTH))
            opening = compare_openings(common, templates, layers, candidates, COMPARED)
            found = grow_caption(common, templates, layers, candidates, opening, nothing, 10, TEMPERATURE)
            with_words.append(perf_counter() - started)
            further.append(len(found))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    lines = (
        f"LoRAs of SD 1.5's size, rank {RANK}, {len(layers)} layers that see text, {WORDS:,} words, n = {count}",
        f"updates read alone: {1 / median(alone):.1f} a second",
        f"words read: {1 / median(with_words):.1f} a second; caption words found: {median(further)}",
        f"largest memory: {memory:,.0f} MiB",
    )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
