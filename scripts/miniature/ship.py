"""Steps ``previews`` and ``ship``: draw previews, and write into app/miniature what ships.

The space and the experts are written there by the steps ``final`` and ``tell``.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import oxipng
from PIL import Image

from loradex.app.drawing.base_models import MINIATURE_DEFAULTS
from loradex.app.drawing.loaded_models import MiniatureBaseModel
from loradex.app.indexing.file_reader import FileReader
from loradex.app.miniature.pipeline import image_grid
from loradex.app.paths import MINIATURE
from loradex.index import Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.training.labelled_loras import LabelledLora, find_labelled_loras
from scripts.miniature.settings import SEED, Build, atomic, log, timed
from scripts.miniature.ship_captioned import ship_captioned

# Numbers of LoRAs that ship, by fleet and split; in the first tree, one of each held-out concept.
SHIPPED_COUNTS = {"a": {"test_holdout": 165, "test": 36}, "b": {"test_holdout": 80, "test": 19}}
# Concepts that ship before others, so that the examples of the page and the README find models.
EXAMPLE_CONCEPTS = (
    "pizza",
    "dog",
    "airplane",
    "drum",
    "red apple",
    "beach with umbrella",
    "strawberry",
    "racing car",
    "shark",
    "lion",
)
SHIPPED_PARTS = {
    "clip": "encoder/clip",
    "upsampler": "upsampler",
    "tree-a": "trees/mini-a",
    "tree-b": "trees/mini-b",
    "concepts.json": "concepts.json",
    "synonyms.json": "synonyms.json",
    "keywords.json": "keywords.json",
}
MEASURED_FILES = (
    "elsewhere.json",
    *(
        name
        for fleet in "ab"
        for name in (
            f"ablation-{fleet}.jsonl",
            f"recipes-{fleet}.jsonl",
            f"recipes-{fleet}.json",
            f"reading-{fleet}.json",
        )
    ),
)
PALETTE_SIZE = 64  # colours of a preview
ZOPFLI_ITERATIONS = 15


def choose_loras(build: Build, fleet: str) -> Iterator[LabelledLora]:
    """Yield the first LoRA of each concept up to the count of each split, example concepts first."""
    files = sorted(
        find_labelled_loras(build / f"fleet-{fleet}"),
        key=lambda file: (file.class_name not in EXAMPLE_CONCEPTS, file.path.parent.name),
    )
    for split, count in SHIPPED_COUNTS[fleet].items():
        first: dict[str, LabelledLora] = {}
        for file in (file for file in files if file.split == split):
            first.setdefault(file.class_name, file)
        yield from list(first.values())[:count]


def ship_parts(build: Build, target: Path = MINIATURE) -> None:
    """Copy the mini-CLIP, the upsampler, both base models, concepts and lists of words."""
    for name, path in SHIPPED_PARTS.items():
        copy(build / name, target / path)


def restore_parts(build: Build, source: Path = MINIATURE) -> None:
    """Copy shipped parts, previews and measurements back into a build folder, to train more LoRAs."""
    for name, shipped_path in SHIPPED_PARTS.items():
        if (source / shipped_path).exists():
            copy(source / shipped_path, build / name)
    copy(source / "zoo" / "previews", build / "previews")
    for path in (source / "measured").glob("*.json*"):
        copy(path, build / path.name)


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def ship_loras(build: Build, target: Path = MINIATURE) -> None:
    """Copy the chosen LoRAs in Model-J's layout."""
    shutil.rmtree(target / "models", ignore_errors=True)
    for fleet in SHIPPED_COUNTS:
        for file in choose_loras(build, fleet):
            path = target / "models" / f"mini-{fleet}" / file.path.relative_to(build / f"fleet-{fleet}")
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.path, path)


def build_previews(build: Build) -> None:
    """Write ``previews/<id>.png``: a grid of four drawings of each chosen LoRA, with a palette."""
    for fleet in SHIPPED_COUNTS:
        base_model = MiniatureBaseModel(build / f"tree-{fleet}", build / "upsampler", build / "clip")
        files = list(choose_loras(build, fleet))
        for number, file in enumerate(files):
            path = build / "previews" / f"{LoraFile.open(file.path).id}.png"
            if not path.exists():
                with atomic(path) as temporary:
                    drawing = base_model.draw(MINIATURE_DEFAULTS, LoraFile.open(file.path), lambda: None)
                    drawing.quantize(PALETTE_SIZE).save(temporary, "PNG")
                    optimize_png(temporary)
            if number % 20 == 0:
                log.info("previews %s: %d of %d", fleet, number + 1, len(files))


def optimize_png(png: Path) -> None:
    """Compress a PNG further, without loss."""
    oxipng.optimize(png, level=6, deflate=oxipng.Deflaters.zopfli(ZOPFLI_ITERATIONS), strip=oxipng.StripChunks.safe())


def ship_zoo(build: Build, target: Path = MINIATURE) -> None:
    """Index the shipped LoRAs, with their previews: those of the build, else those that ship already."""
    zoo, encoder = target / "zoo", Encoder.load(target / "encoder")
    previews = build / "previews"
    if not previews.exists():
        copy(zoo / "previews", previews)
    shutil.rmtree(zoo, ignore_errors=True)
    with Zoo.create(zoo, encoder.space.name, encoder.space.dim) as opened:
        reader = FileReader(encoder)
        for fleet in SHIPPED_COUNTS:
            for path in sorted((target / "models" / f"mini-{fleet}").glob("*/*/*.safetensors")):
                entry = reader.read_local(str(path))
                preview = f"previews/{entry.model.id}.png"
                copy(previews / f"{entry.model.id}.png", zoo / preview)
                name = f"mini-{fleet}-{path.parent.name.removeprefix('model_idx_')}"
                relative = Path("..", path.relative_to(target)).as_posix()
                model = replace(entry.model, name=name, path=relative, preview=preview)
                opened.add([model], [entry.positions], {model.id: entry.fingerprint or b""})
        log.info("zoo: %d models", len(opened))


def ship_contact_sheet(target: Path = MINIATURE, docs: Path = Path("docs")) -> None:
    """Write ``docs/contact-sheet.png``: the previews of 64 random shipped LoRAs."""
    previews = sorted((target / "zoo" / "previews").glob("*.png"))
    chosen = np.random.default_rng(SEED).choice(len(previews), 64, replace=False)
    image_grid([Image.open(previews[i]).convert("RGB") for i in sorted(chosen)], 8).quantize(256).save(
        docs / "contact-sheet.png", optimize=True
    )


def ship_measured(build: Build, target: Path = MINIATURE) -> None:
    """Copy the results that exist."""
    for name in MEASURED_FILES:
        if (build / name).exists():
            copy(build / name, target / "measured" / name)


def ship(build: Build) -> None:
    """Write everything that ships, except the space and the experts, which earlier steps wrote."""
    with timed("ship"):
        ship_parts(build)
        ship_measured(build)
        ship_loras(build)
        ship_captioned(build)
        ship_zoo(build)
        ship_contact_sheet()
    size = sum(path.stat().st_size for path in MINIATURE.rglob("*") if path.is_file())
    log.info("app/miniature: %.1f MB", size / 1e6)
    (build / "shipped.json").write_text(json.dumps({"bytes": size}))
