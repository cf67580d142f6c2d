"""Random base models of true shapes, as a folder of diffusers and in one file, to try what works on tiny ones.

    python -m tests.app.growing.base_shapes FAMILY FOLDER
    loradex grow FOLDER/FAMILY.safetensors --dry-run --size 256

The first writes FOLDER/FAMILY and FOLDER/FAMILY.safetensors of sd1, sd2, sdxl or sd3. It needs the disk twice over (SD
1.5: 4.3 GB in all, SDXL: 14 GB, SD 3 without T5: 12 GB).
"""

import sys
from pathlib import Path

import torch

from tests.app.drawing.original_layout import save_one_file
from tests.app.drawing.random_pipelines import random_pipeline


def make(family: str, folder: Path) -> None:
    """Write a model with random weights in half precision: float16 for SD 1 and 2, else bfloat16."""
    folder.mkdir(parents=True, exist_ok=True)
    pipe = random_pipeline(family, dtype=torch.float16 if family in ("sd1", "sd2") else torch.bfloat16)
    save_one_file(pipe, family, folder / f"{family}.safetensors")
    pipe.save_pretrained(folder / family, max_shard_size="100GB")


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
