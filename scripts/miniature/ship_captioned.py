"""Step ``captioned``: write LoRAs whose captions are known into app/miniature, with their captions.

Of their layers those ship that captions leave traces in: keys and values of cross-attention, and the text encoder.
What their headers said of captions is in ``captions.json`` alone, so that words are read from weights or not at all.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from safetensors.torch import save_file

from loradex.app.experts.captioned_loras import CAPTIONS_FILE
from loradex.app.paths import MINIATURE
from scripts.miniature.caption_fleets import Group
from scripts.miniature.settings import Build, log

TREE: Final = "mini-b"
SPLIT: Final = "test_holdout"
FLEETS: Final = ("b1", "b2", "b3")  # LoRAs are taken from each in turn
# How many of each kind ship; most are of low rank, as 90 MB are the limit.
SHIPPED: Final = (
    Group("label", "uniform", 2, 42),
    Group("label", "uniform", 8, 1, trains_text=True),
    Group("trigger", "uniform", 8, 5),
    Group("trigger", "normal", 16, 1),
    Group("trigger", "normal", 32, 1),
    Group("several", "uniform", 4, 9),
    Group("several", "normal", 16, 1),
)
KEPT_ENDINGS: Final = (".attn2.to_k", ".attn2.to_v")
KEPT_BEGINNING: Final = "text_encoder"
RECIPE_FIELDS: Final = ("kind", "trainer", "rank", "trains_text", "captions", "words")


@dataclass(frozen=True, slots=True)
class TrainedLora:
    """A LoRA of a fleet, with the recipe in its header."""

    path: Path
    fleet: str
    recipe: dict[str, Any]

    def is_of(self, group: Group) -> bool:
        """Whether it was trained as those of a group."""
        kind, trainer, rank, trains_text = (self.recipe[name] for name in RECIPE_FIELDS[:4])
        return (kind, trainer, rank, trains_text) == (group.kind, group.trainer, group.rank, group.trains_text)

    @property
    def shipped_path(self) -> str:
        """Its path below the folder of captioned LoRAs."""
        return f"{self.recipe['kind']}/{self.fleet}-{self.recipe['index']:04d}.safetensors"


def trained_loras(build: Build, fleet: str) -> list[TrainedLora]:
    """The LoRAs of a fleet that are trained, in the order of their numbers."""
    loras = []
    for path in sorted((build / f"captions-{fleet}" / SPLIT).glob("*/*.safetensors")):
        with safe_open(path, "pt") as file:
            loras.append(TrainedLora(path, fleet, json.loads(file.metadata()["recipe"])))
    return loras


def choose_captioned(build: Build) -> Iterator[TrainedLora]:
    """Yield the first LoRAs of each group, from each fleet in turn, no words twice in a group."""
    fleets = [trained_loras(build, fleet) for fleet in FLEETS]
    for group in SHIPPED:
        in_turn = chain(*zip_longest(*([lora for lora in fleet if lora.is_of(group)] for fleet in fleets)))
        first: dict[tuple[str, ...], TrainedLora] = {}
        for lora in in_turn:
            if lora is not None:
                first.setdefault(tuple(lora.recipe["words"]), lora)
        chosen = list(first.values())[: group.count]
        if len(chosen) < group.count:
            log.warning("captioned: %s: only %d are trained", group, len(chosen))
        yield from chosen


def ship_captioned(build: Build, target: Path = MINIATURE) -> None:
    """Write ``captioned/<tree>/<kind>/<fleet>-NNNN.safetensors`` and the list of their captions."""
    folder = target / "captioned" / TREE
    shutil.rmtree(folder, ignore_errors=True)
    rows = []
    for lora in choose_captioned(build):
        path = folder / lora.shipped_path
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_layers(lora.path, path)
        rows.append({"file": lora.shipped_path} | {name: lora.recipe[name] for name in RECIPE_FIELDS})
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / CAPTIONS_FILE).write_text(f"[\n{lines}\n]\n", "utf-8")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    log.info("captioned: %d LoRAs, %.2f MB", len(rows), size / 1e6)


def write_text_layers(source: Path, target: Path) -> None:
    """Copy a LoRA without the layers that see no text, and without what its header says of its captions."""
    with safe_open(source, "pt") as file:
        names = [
            name
            for name in file.keys()  # noqa: SIM118 - no mapping
            if name.startswith(KEPT_BEGINNING) or name.partition(".lora.")[0].endswith(KEPT_ENDINGS)
        ]
        metadata = {"format": "pt", "base_model": file.metadata()["base_model"]}
        save_file({name: file.get_tensor(name) for name in names}, target, metadata)
