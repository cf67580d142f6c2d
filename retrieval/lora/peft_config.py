"""PEFT's config, which holds the scale: in the header, or in adapter_config.json beside adapter_model.safetensors.

Source: peft ``tuners/lora/layer.py`` (alpha / r, or alpha / sqrt(r) with rsLoRA) and ``utils/other.py``
(get_pattern_key); diffusers ``loaders/lora_base.py`` (lora_adapter_metadata; if a pipeline was saved, each key begins
with the name of the component).
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora.factors import MAX_RANK
from loradex.retrieval.lora.header import Header

CONFIG_NAME: Final = "adapter_config.json"
MAX_CONFIG_BYTES: Final = 2**20
MAX_ALPHA: Final = 1e12
REGEX_CHARACTERS: Final = frozenset("\\^$*+?{}[]|()")


def read_peft_config(header: Header) -> dict[str, Any]:
    """Read the config of a file; empty if there is none.

    Raises:
        FileCorrupt: it is not valid JSON.
        FileMissing: it cannot be read.
    """
    text = header.metadata.get("lora_adapter_metadata")
    if text is None and header.path.stem == "adapter_model":
        text = (header.read_sibling(CONFIG_NAME, MAX_CONFIG_BYTES) or b"").decode("utf-8", errors="replace")
    try:
        config = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise FileCorrupt(f"{header.display_name}: PEFT's config is not valid JSON; mend adapter_config.json") from None
    return config if isinstance(config, dict) else {}


def peft_scale(where: str, config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor by which the config scales the update of a module; 1 without an alpha, as in diffusers.

    Args:
        where: the layer as error messages name it.
        config: of the file.
        module: its name in the file.
        rank: of the update, or 0 if the file does not show it: the config's own is taken.

    Raises:
        FileCorrupt: the alpha is not a number within the bounds.
    """
    component, _, name = module.removeprefix("base_model.model.").partition(".")
    if f"{component}.lora_alpha" in config or f"{component}.r" in config:
        prefix = f"{component}."
        config = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        module = name
    if not rank:
        rank = config["r"] if isinstance(config.get("r"), int) and 0 < config["r"] <= MAX_RANK else 1
    alpha = config.get("lora_alpha", config.get("alpha", rank))
    patterns = config.get("alpha_pattern")
    if isinstance(patterns, dict):
        alpha = next((value for pattern, value in patterns.items() if matches(pattern, module)), alpha)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= MAX_ALPHA:
        raise FileCorrupt(
            f"{where}: expected a number up to {MAX_ALPHA:.0e} as lora_alpha, found {str(alpha)[:40]!r}; mend adapter_config.json"
        )
    return float(alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank)


def matches(pattern: str, module: str) -> bool:
    """Whether a pattern is the name of the module, or the end of its path.

    PEFT reads patterns as regular expressions. Those of an untrusted file are not run: only plain names and their
    anchors match.
    """
    name = pattern.replace("\\.", ".").removesuffix("$")
    if name.startswith("^"):
        return module == name[1:]
    return module == name or module.endswith("." + name)


def ignored_patterns(config: Mapping[str, Any]) -> list[str]:
    """The patterns that are more than plain names, and so have no effect here."""
    patterns = [
        pattern
        for key, value in config.items()
        if key.endswith("alpha_pattern") and isinstance(value, dict)
        for pattern in value
    ]
    return [
        pattern
        for pattern in patterns
        if REGEX_CHARACTERS & set(pattern.replace("\\.", ".").removeprefix("^").removesuffix("$"))
    ]
