"""The safetensors files of a component in a folder of diffusers: in one piece or sharded, and of which variant.

Names: diffusers ``utils/hub_utils.py`` (_add_variant) and ``models/model_loading_utils.py``; the same in transformers.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loradex.retrieval.base_model.json_file import read_json_object
from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.regular_file import is_regular_file

VARIANTS: Final = ("", "fp16", "bf16", "fp32")  # in order of preference; others, such as non_ema, are not what draws
STEMS: Final = ("diffusion_pytorch_model", "model")  # of diffusers and of transformers
PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
MAX_INDEX_BYTES: Final = 16 * 2**20
MAX_SHARDS: Final = 1000
SHARD_NAME: Final = re.compile(r"[\w.-]{1,200}\.safetensors")  # a file of the same folder


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of one variant of a component; ``variant`` is "" where the files' names have none."""

    files: tuple[Path, ...]
    variant: str


def find_weights(folder: Path, variants: Sequence[str] = VARIANTS) -> Weights | None:
    """Find the weights of a component in its folder; None if none of the variants is there as safetensors.

    Raises:
        FileMissing, FileCorrupt: an index of shards cannot be read.
    """
    for variant in variants:
        for stem in STEMS:
            single = folder / (f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors")
            if is_regular_file(single):
                return Weights((single,), variant)
            index = folder / f"{stem}.safetensors.index{'.' if variant else ''}{variant}.json"
            if is_regular_file(index):
                return Weights(read_shards(index), variant)
    return None


def read_shards(index: Path) -> tuple[Path, ...]:
    """The files that an index of shards names, sorted.

    Raises:
        FileMissing: the index cannot be read.
        FileCorrupt: it is damaged, or names files of another folder.
    """
    tensors = read_json_object(index, MAX_INDEX_BYTES).get("weight_map")
    names = set(tensors.values()) if isinstance(tensors, dict) and all(map(is_text, tensors.values())) else set()
    if not 0 < len(names) <= MAX_SHARDS:
        raise FileCorrupt(
            f"{index}: expected a weight_map to 1 to {MAX_SHARDS} files, found {len(names) or 'none'}; download it again"
        )
    for name in names:
        if not SHARD_NAME.fullmatch(name):
            raise FileCorrupt(
                f"{index}: expected names of safetensors files beside it, found {printable(name)}; download it again"
            )
    return tuple(index.with_name(name) for name in sorted(names))


def is_text(value: object) -> bool:
    """Whether a value of JSON is text."""
    return isinstance(value, str)


def has_pickle(folder: Path) -> bool:
    """Whether a component's folder holds weights as a pickle."""
    return any(is_regular_file(folder / f"{stem}{ending}") for stem in ("pytorch_model", *STEMS) for ending in PICKLES)
