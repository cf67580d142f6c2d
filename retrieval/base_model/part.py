"""A component of a base model: where its tensors lie, and how they are named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

# whose names the tensors of a part have
TRANSFORMERS: Final = "transformers"
OPEN_CLIP: Final = "open_clip"
DIFFUSERS: Final = "diffusers"
SGM: Final = "sgm"  # Stability AI's generative-models, and CompVis' before


@dataclass(frozen=True, slots=True)
class Part:
    """A component of a base model, e.g. its text encoder.

    Attributes:
        files: safetensors files that hold its tensors; a sharded one has several.
        prefix: the beginning of its tensors' names in those files, "" in a folder of its own.
        layout: whose names the tensors have behind the prefix: of text encoders ``transformers`` or ``open_clip``, of
            other parts ``diffusers`` or ``sgm``.
        config: its config.json in a folder of diffusers; None in a checkpoint in one file.
    """

    files: tuple[Path, ...]
    prefix: str
    layout: str
    config: Path | None
