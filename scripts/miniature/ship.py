"""Step 11: what ships, written into app/miniature: encoder, base models, LoRAs, zoo with drawings, baselines."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import oxipng
from PIL import Image

from loradex.app.drawing.base_models import ICON
from loradex.app.drawing.loaded_models import MiniatureArtist
from loradex.app.indexing.file_reader import Reader
from loradex.app.miniature.pipeline import sheet
from loradex.app.paths import MINIATURE
from loradex.index import Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.training.labelled_loras import LabelledFile, find_labelled
from scripts.miniature.settings import SEED, Build, atomic, log, timed

# LoRAs that ship, by fleet and split: every held-out concept once in the first tree, and some of all kinds besides.
SHIPPED = {"a": {"test_holdout": 165, "test": 36}, "b": {"test_holdout": 80, "test": 19}}
# Seen concepts that ship before others, so that the examples of the page and the README have an answer.
EXAMPLES = (
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
PARTS = {
    "clip": "encoder/clip",
    "upsampler": "upsampler",
    "tree-a": "trees/mini-a",
    "tree-b": "trees/mini-b",
    "concepts.json": "concepts.json",
    "synonyms.json": "synonyms.json",
    "keywords.json": "keywords.json",
}
MEASURED = (
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
COLOURS = 64  # of a drawing's palette
ITERATIONS = 15  # of zopfli


def chosen_files(build: Build, fleet: str) -> Iterator[LabelledFile]:
    """The first LoRA of each concept up to the count of each split, examples first, then in order of number."""
    files = sorted(
        find_labelled(build / f"fleet-{fleet}"),
        key=lambda file: (file.class_name not in EXAMPLES, file.path.parent.name),
    )
    for split, count in SHIPPED[fleet].items():
        first: dict[str, LabelledFile] = {}
        for file in (file for file in files if file.split == split):
            first.setdefault(file.class_name, file)
        yield from list(first.values())[:count]


def ship_parts(build: Build, target: Path = MINIATURE) -> None:
    """Copy the mini-CLIP, the upsampler, both base models, concepts and the lists of words."""
    for name, place in PARTS.items():
        copy(build / name, target / place)


def restore_parts(build: Build, source: Path = MINIATURE) -> None:
    """Copy those that are there, previews and what was measured back into a build folder, to train more LoRAs from the base models that ship."""
    for name, place in PARTS.items():
        if (source / place).exists():
            copy(source / place, build / name)
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
    for fleet in SHIPPED:
        for file in chosen_files(build, fleet):
            place = target / "models" / f"mini-{fleet}" / file.path.relative_to(build / f"fleet-{fleet}")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file.path, place)


def build_previews(build: Build) -> None:
    """Write ``previews/<id>.png``: four drawings of each chosen LoRA, two by two, with a palette."""
    for fleet in SHIPPED:
        artist = MiniatureArtist(build / f"tree-{fleet}", build / "upsampler", build / "clip")
        files = list(chosen_files(build, fleet))
        for number, file in enumerate(files):
            path = build / "previews" / f"{LoraFile.open(file.path).id}.png"
            if not path.exists():
                with atomic(path) as temporary:
                    drawing = artist.draw(ICON, LoraFile.open(file.path), lambda: None)
                    drawing.quantize(COLOURS).save(temporary, "PNG")
                    pack(temporary)
            if number % 20 == 0:
                log.info("previews %s: %d of %d", fleet, number + 1, len(files))


def pack(png: Path) -> None:
    """Make a PNG as small as it goes, pixel by pixel the same."""
    oxipng.optimize(png, level=6, deflate=oxipng.Deflaters.zopfli(ITERATIONS), strip=oxipng.StripChunks.safe())


def ship_zoo(build: Build, target: Path = MINIATURE) -> None:
    """Index the shipped LoRAs, with their previews."""
    zoo, encoder = target / "zoo", Encoder.load(target / "encoder")
    shutil.rmtree(zoo, ignore_errors=True)
    with Zoo.create(zoo, encoder.space.name, encoder.space.dim) as opened:
        reader = Reader(encoder)
        for fleet in SHIPPED:
            for path in sorted((target / "models" / f"mini-{fleet}").glob("*/*/*.safetensors")):
                entry = reader.open(str(path))
                preview = f"previews/{entry.model.id}.png"
                copy(build / preview, zoo / preview)
                name = f"mini-{fleet}-{path.parent.name.removeprefix('model_idx_')}"
                relative = Path("..", path.relative_to(target)).as_posix()
                model = replace(entry.model, name=name, path=relative, preview=preview)
                opened.add([model], [entry.vector], {model.id: entry.fingerprint or b""})
        log.info("zoo: %d models", len(opened))


def ship_contact_sheet(target: Path = MINIATURE, docs: Path = Path("docs")) -> None:
    """``docs/contact-sheet.png``: the drawings of 64 shipped LoRAs, drawn by lot."""
    previews = sorted((target / "zoo" / "previews").glob("*.png"))
    drawn = np.random.default_rng(SEED).choice(len(previews), 64, replace=False)
    sheet([Image.open(previews[i]).convert("RGB") for i in sorted(drawn)], 8).quantize(256).save(
        docs / "contact-sheet.png", optimize=True
    )


def ship_measured(build: Build, target: Path = MINIATURE) -> None:
    """Copy what was measured on all LoRAs, as far as it was."""
    for name in MEASURED:
        if (build / name).exists():
            copy(build / name, target / "measured" / name)


def ship(build: Build) -> None:
    """Everything that ships; the encoder's space and experts are there already."""
    with timed("ship"):
        ship_parts(build)
        ship_measured(build)
        ship_loras(build)
        ship_zoo(build)
        ship_contact_sheet()
    size = sum(path.stat().st_size for path in MINIATURE.rglob("*") if path.is_file())
    log.info("app/miniature: %.1f MB", size / 1e6)
    (build / "shipped.json").write_text(json.dumps({"bytes": size}))
