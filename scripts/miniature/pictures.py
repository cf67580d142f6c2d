"""Step ``pictures``: renders open emoji sets (SVG in npm packages) at 64 x 64 pixels and splits the concepts."""

import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from scripts.miniature.settings import PICTURE_SIZE, SEED, TRAINING_SETS, UNSEEN_SETS, Build, atomic, timed

GROUPS = {3: "animals and nature", 4: "food and drink", 5: "travel and places", 6: "activities", 7: "objects"}
CLOCK_FACE = re.compile(r"o’clock|thirty$")
MIN_DRAWINGS = 4
SPLIT_SHARES = {"train": 0.7, "validation": 0.1, "heldout": 0.2}


def build_pictures(build: Build) -> None:
    """Write ``pictures.npz`` (pixels, concept, set) and ``concepts.json`` (label, tags, subgroup, split)."""
    if (build / "pictures.npz").exists():
        return
    with timed("pictures"):
        icon_sets = {
            name: IconSet(fetch_npm_package(f"@iconify-json/{name}", version, build / "npm"))
            for name, version in (TRAINING_SETS | UNSEEN_SETS).items()
        }
        emojibase = fetch_npm_package("emojibase-data", "17.0.0", build / "npm")
        concepts: list[dict[str, Any]] = []
        pixels, concept_of, set_of = [], [], []
        for emoji in concrete_emoji(emojibase):
            drawings = {name: svg for name, icons in icon_sets.items() if (svg := icons.find_svg(emoji))}
            if sum(name in TRAINING_SETS for name in drawings) < MIN_DRAWINGS:
                continue
            for name, svg in drawings.items():
                pixels.append(render_svg(svg))
                concept_of.append(len(concepts))
                set_of.append(list(icon_sets).index(name))
            concepts.append({key: emoji[key] for key in ("label", "tags", "subgroup", "group", "hexcode")})
        for concept, split in zip(concepts, split_concepts(len(concepts)), strict=True):
            concept["split"] = split
        with atomic(build / "concepts.json") as path:
            path.write_text(json.dumps(concepts, indent=1, ensure_ascii=False))
        with atomic(build / "pictures.npz") as path, path.open("wb") as file:
            np.savez(
                file, pixels=np.stack(pixels), concept=np.array(concept_of, np.int16), set=np.array(set_of, np.int8)
            )


def fetch_npm_package(package: str, version: str, folder: Path) -> Path:
    """Unpack an npm package into ``folder`` and return its path."""
    target = folder / package.rsplit("/", 1)[-1]
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        result = subprocess.run(
            ["npm", "pack", "--silent", f"{package}@{version}"], cwd=folder, check=True, capture_output=True, text=True
        )  # noqa: S603, S607
        with tarfile.open(folder / result.stdout.strip()) as archive:
            archive.extractall(target, filter="data")
    return target / "package"


def concrete_emoji(emojibase: Path) -> Iterator[dict[str, Any]]:
    """Yield emoji of things: no people, hands, flags, symbols, skin tones or clock faces."""
    subgroups = json.loads((emojibase / "meta/groups.json").read_text())["subgroups"]
    for emoji in json.loads((emojibase / "en/data.json").read_text()):
        if emoji.get("group") in GROUPS and "skins" not in emoji and not CLOCK_FACE.search(emoji["label"]):
            group, subgroup = GROUPS[emoji["group"]], subgroups[str(emoji["subgroup"])]
            yield emoji | {"hexcode": strip_variation_selectors(emoji["hexcode"]), "group": group, "subgroup": subgroup}


def strip_variation_selectors(hexcode: str) -> str:
    """Hexadecimal code points without variation selectors, in lower case."""
    return hexcode.lower().replace("-fe0f", "")


class IconSet:
    """An Iconify package: SVG bodies by name, and names by code points where the set has them."""

    def __init__(self, folder: Path) -> None:
        """Read ``icons.json`` and, if it exists, ``chars.json``."""
        icons = json.loads((folder / "icons.json").read_text())
        self.bodies = {name: icon["body"] for name, icon in icons["icons"].items()}
        self.aliases = {name: alias["parent"] for name, alias in icons.get("aliases", {}).items()}
        self.size = icons.get("width", 16), icons.get("height", 16)
        chars = folder / "chars.json"
        names = json.loads(chars.read_text()) if chars.exists() else {}
        self.by_code = {strip_variation_selectors(code): name for code, name in names.items()}

    def find_svg(self, emoji: dict[str, Any]) -> str | None:
        """The SVG of an emoji, found by its code points or else by its name; None if the set lacks it."""
        label = re.sub("[^a-z0-9]+", "-", emoji["label"].lower().replace("’", "")).strip("-")
        for icon in (self.by_code.get(emoji["hexcode"]), label, label.replace("-", "")):
            body = self.bodies.get(self.aliases.get(icon, icon) or "")
            if body:
                width, height = self.size
                return f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {width} {height}">{body}</svg>'
        return None


def render_svg(svg: str) -> np.ndarray:
    """Render an SVG on white: (64, 64, 3) uint8."""
    from resvg_py import svg_to_bytes  # an extra that only this step needs

    png = bytes(svg_to_bytes(svg_string=svg, width=4 * PICTURE_SIZE, height=4 * PICTURE_SIZE, background="white"))
    image = Image.open(io.BytesIO(png)).convert("RGB").resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def split_concepts(n: int) -> list[str]:
    """The split (``train``, ``validation`` or ``heldout``) of each of ``n`` concepts, in fixed shares."""
    order = np.random.default_rng(SEED).permutation(n)
    bounds = np.cumsum([round(n * share) for share in SPLIT_SHARES.values()])
    names = np.array(list(SPLIT_SHARES))[np.searchsorted(bounds[:-1], np.arange(n), side="right")]
    return [str(names[rank]) for rank in np.argsort(order)]


def load_pictures(build: Build) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Pixels (n, 64, 64, 3) uint8, the concept (n,) of each, whether its set is for training (n,), and the concepts."""
    stored = np.load(build / "pictures.npz")
    return (
        stored["pixels"],
        stored["concept"],
        stored["set"] < len(TRAINING_SETS),
        json.loads((build / "concepts.json").read_text()),
    )
