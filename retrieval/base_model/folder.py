"""A base model in a folder of diffusers: model_index.json, and a folder for each component."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from loradex.retrieval.base_model.json_file import read_json_object
from loradex.retrieval.base_model.part import DIFFUSERS, TRANSFORMERS, Part
from loradex.retrieval.base_model.unet_family import family_of_configs, family_of_layers
from loradex.retrieval.base_model.weights import find_weights, has_pickle
from loradex.retrieval.errors import FileMissing, FileUnsafe, FileUnsupported
from loradex.retrieval.lora.family import UNKNOWN
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.regular_file import is_regular_file

INDEX: Final = "model_index.json"
CONFIG: Final = "config.json"
DENOISERS: Final = ("unet", "transformer")
LAYOUTS: Final = {"transformers": TRANSFORMERS, "diffusers": DIFFUSERS}  # by the library of the component's class
NAME: Final = re.compile(r"\w{1,100}")  # of a component, which is the name of its folder
CONVERT: Final = (
    "load it with diffusers where you trust it, and save it with save_pretrained(FOLDER, safe_serialization=True)"
)


def read_folder(folder: Path) -> tuple[str, dict[str, Part]]:
    """The family and the parts of a base model in a folder; a component without weights there is left out.

    Raises:
        FileMissing: there is no model_index.json, or a file that is named is missing.
        FileUnsafe: the weights are pickles.
        FileCorrupt: a header or a configuration is damaged.
        FileUnsupported: it is no model that draws from texts.
    """
    if not is_regular_file(folder / INDEX):
        raise FileMissing(f"{folder}: expected a folder of diffusers, found no {INDEX} in it; {hint_for(folder)}")
    classes = component_classes(folder)
    denoiser = next((name for name in DENOISERS if name in classes), None)
    if denoiser is None:
        raise FileUnsupported(
            f"{folder}: expected a model with a U-Net or a transformer in {INDEX}, found {', '.join(classes) or 'nothing'}; name another folder"
        )
    parts = {name: part for name, (library, _) in classes.items() if (part := read_part(folder / name, library))}
    if not any(name.startswith("text_encoder") for name in parts):
        pickles = any(has_pickle(folder / name) for name in classes)
        what = f"{folder}: expected a text encoder as safetensors, found"
        if pickles:
            raise FileUnsafe(f"{what} pickles, which were not opened as they could run code; {CONVERT}")
        raise FileMissing(f"{what} {', '.join(parts) or 'no weights'}; download the whole model")
    return family_of(folder, denoiser, classes[denoiser][1], parts), parts


def component_classes(folder: Path) -> dict[str, tuple[str, str]]:
    """Library and class of the components that model_index.json names; those of unknown libraries are left out."""
    classes = {}
    for name, value in read_json_object(folder / INDEX).items():
        match value:
            case [str(library), str(class_name)] if library in LAYOUTS and NAME.fullmatch(name):
                classes[name] = library, class_name
    return classes


def read_part(folder: Path, library: str) -> Part | None:
    """A component in its folder; None if it has no weights as safetensors there.

    Raises:
        FileMissing: it has weights without a configuration, or a shard is missing.
        FileCorrupt: an index of shards is damaged.
    """
    weights = find_weights(folder)
    if weights is None:
        return None
    for path in (folder / CONFIG, *weights.files):
        if not is_regular_file(path):
            raise FileMissing(f"{path}: expected a file of the base model, found none; download the whole model")
    return Part(weights.files, "", LAYOUTS[library], folder / CONFIG)


def family_of(folder: Path, denoiser: str, class_name: str, parts: Mapping[str, Part]) -> str:
    """The family of a base model.

    Args:
        folder: of the base model.
        denoiser: the name of the component that draws.
        class_name: of that component, as model_index.json has it.
        parts: those that have weights.
    """
    family = UNKNOWN
    if denoiser == "unet" and denoiser in parts:
        family = family_of_layers(Header.read(path) for path in parts[denoiser].files)
    elif class_name:
        config = folder / denoiser / CONFIG
        family = family_of_configs(class_name, read_json_object(config) if is_regular_file(config) else {})
    return family


def hint_for(folder: Path) -> str:
    """How to mend the name of a folder that is no base model itself."""
    if (folder / "snapshots").is_dir():
        return "name a folder below its snapshots"
    if is_regular_file(folder.parent / INDEX):
        return f"name {folder.parent}"
    return "name the folder that has it, or a checkpoint in one file"
