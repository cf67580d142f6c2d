"""LoRAs whose cross-attention looks at the states of a text, as those that were trained with it as their caption."""

from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from loradex.app.bases.shipped import shipped_base
from loradex.app.paths import MINIATURE
from loradex.retrieval.text_states import PromptEncoder
from loradex.retrieval.words.english import english_words

SHIPPED = sorted(MINIATURE.glob("models/mini-b/test/*/*.safetensors"))[0]
NOISE = 0.01  # beside inputs at length 1


@cache
def prompt_encoder() -> PromptEncoder:
    """The text encoder of mini-b."""
    return PromptEncoder.load(shipped_base("mini-b"))


def write_captioned(path: Path, caption: str, seed: int = 0) -> Path:
    """Write a LoRA of mini-b, of rank 4: attn2.to_k and to_v map what sets a caption's first states apart to outputs.

    Other layers, and what these map beside, are small noise.
    """
    encoder = prompt_encoder()
    states = encoder.states(encoder.tokenize([caption, *english_words()[:1000:10]]))[:, 1:5]
    inputs = torch.nn.functional.normalize(states[0] - states[1:].mean(0), dim=1)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, tensor in load_file(SHIPPED).items():
        noise = torch.randn(tensor.shape, generator=generator)
        if ("attn2.to_k" in name or "attn2.to_v" in name) and ".down." in name:
            tensors[name] = inputs + NOISE * noise
        else:
            tensors[name] = noise if "attn2.to_k" in name or "attn2.to_v" in name else NOISE * noise
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)
    return path
