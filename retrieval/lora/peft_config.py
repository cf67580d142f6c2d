"""PEFT's settings, which say the scale: in the header, or in adapter_config.json beside adapter_model.safetensors.

Source: peft ``tuners/lora/layer.py`` (alpha / r, or alpha / sqrt(r) with rsLoRA) and ``utils/other.py`` (get_pattern_key); diffusers
``loaders/lora_base.py`` (lora_adapter_metadata, with the component before each name where a pipeline was saved).
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from loradex.retrieval.errors import FileCorrupt
from loradex.retrieval.lora.factors import LARGEST_RANK
from loradex.retrieval.lora.header import Header

CONFIG: Final = "adapter_config.json"
LARGEST_CONFIG: Final = 2**20  # bytes
LARGEST_ALPHA: Final = 1e12
SPECIAL: Final = frozenset("\\^$*+?{}[]|()")


def peft_settings(header: Header) -> dict[str, Any]:
    """The settings, or none.

    Raises:
        FileCorrupt: they are no JSON.
        FileMissing: they cannot be read.
    """
    text = header.metadata.get("lora_adapter_metadata")
    if text is None and header.path.stem == "adapter_model":
        text = (header.beside(CONFIG, LARGEST_CONFIG) or b"").decode("utf-8", errors="replace")
    try:
        settings = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise FileCorrupt(f"{header.where}: PEFT's settings are not valid JSON; mend adapter_config.json") from None
    return settings if isinstance(settings, dict) else {}


def peft_scale(where: str, settings: Mapping[str, Any], module: str, rank: int) -> float:
    """What the settings multiply the update of a module by; 1 where they say nothing, as in diffusers.

    A rank of 0 means that the file does not show it, and the settings' own is taken.

    Raises:
        FileCorrupt: the alpha is no number within the bounds.
    """
    component, _, inside = module.removeprefix("base_model.model.").partition(".")
    if f"{component}.lora_alpha" in settings or f"{component}.r" in settings:
        settings = {
            name.removeprefix(f"{component}."): value
            for name, value in settings.items()
            if name.startswith(f"{component}.")
        }
        module = inside
    if not rank:
        rank = settings["r"] if isinstance(settings.get("r"), int) and 0 < settings["r"] <= LARGEST_RANK else 1
    alpha = settings.get("lora_alpha", settings.get("alpha", rank))
    patterns = settings.get("alpha_pattern")
    if isinstance(patterns, dict):
        alpha = next((value for pattern, value in patterns.items() if matches(pattern, module)), alpha)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) <= LARGEST_ALPHA:
        raise FileCorrupt(
            f"{where}: expected a number up to {LARGEST_ALPHA:.0e} as lora_alpha, found {str(alpha)[:40]!r}; mend adapter_config.json"
        )
    return float(alpha / math.sqrt(rank) if settings.get("use_rslora") else alpha / rank)


def matches(pattern: str, module: str) -> bool:
    """Whether the pattern names the module, or the end of its path.

    PEFT takes patterns for regular expressions; those of strangers are not run, only plain names and their anchors are understood.
    """
    name = pattern.replace("\\.", ".").removesuffix("$")
    if name.startswith("^"):
        return module == name[1:]
    return module == name or module.endswith("." + name)


def strange_patterns(settings: Mapping[str, Any]) -> list[str]:
    """The patterns that are no plain names, and so without effect here."""
    found = [
        pattern
        for key, value in settings.items()
        if key.endswith("alpha_pattern") and isinstance(value, dict)
        for pattern in value
    ]
    return [
        pattern for pattern in found if SPECIAL & set(pattern.replace("\\.", ".").removeprefix("^").removesuffix("$"))
    ]
