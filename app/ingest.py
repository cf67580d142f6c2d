"""Folders of LoRAs -> a zoo: each file by its weights where an expert reads it, else by its metadata."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.answers import IndexAnswer, Progress
from index import FoundBy, KnownFile, Model, Zoo
from retrieval.encoder import Encoder
from retrieval.errors import FileError, FileMissing, FileUnsupported, NoExpert
from retrieval.fingerprint import Fingerprint
from retrieval.lora import WeightsFile

BATCH: Final = 64  # files a transaction
PREVIEW: Final = 256  # pixels a side at the most
PICTURES: Final = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp")  # as ComfyUI's and A1111's users name them
GENERIC_STEMS: Final = {"pytorch_lora_weights", "adapter_model", "diffusion_pytorch_model", "model"}
Vector = NDArray[np.float32] | None


def find_files(folders: Sequence[Path]) -> list[Path]:
    """Every ``.safetensors`` file below some folders, in order; links to folders are not followed.

    Raises:
        FileMissing: a folder is not there, or none of them holds such a file.
    """
    found: dict[Path, None] = {}
    for folder in folders:
        if not folder.exists():
            raise FileMissing(f"{folder}: expected a folder, found nothing there; check the path")
        found |= dict.fromkeys([folder] if folder.is_file() else sorted(walk(folder)))
    if not found:
        raise FileMissing(f"{', '.join(map(str, folders))}: expected .safetensors files somewhere below, found none; name the folder that holds your LoRAs")
    return list(found)


def walk(folder: Path) -> Iterator[Path]:
    """Files below a folder whose name says safetensors, hidden folders left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if name.endswith(".safetensors") and not name.startswith("."))


def index_folders(folders: Sequence[Path], zoo_folder: Path, encoder: Encoder, progress: Progress = lambda done, total, file: None) -> IndexAnswer:
    """Add the LoRAs below some folders to a zoo, which is made if there is none; unchanged files are skipped.

    Raises:
        FileMissing: there is nothing to index.
        ZooError: the zoo is locked, damaged, or bound to another space.
    """
    files = find_files(folders)
    with Zoo.open_or_create(zoo_folder, encoder.space.name, encoder.space.dim) as zoo:
        return Ingestion(zoo, encoder).run(files, progress)


@dataclass(frozen=True, slots=True)
class Entry:
    """A LoRA as a zoo takes it."""

    model: Model
    vector: Vector
    fingerprint: bytes


class Ingestion:
    """One run over a list of files."""

    def __init__(self, zoo: Zoo, encoder: Encoder) -> None:
        """Write to ``zoo`` with the experts of ``encoder``."""
        self.zoo, self.encoder = zoo, encoder
        self.answer = IndexAnswer(str(zoo.folder))
        self.known = zoo.known_files()

    def run(self, files: Sequence[Path], progress: Progress) -> IndexAnswer:
        """Read all files, committing every ``BATCH``; a bad file is noted and never stops the run."""
        for start in range(0, len(files), BATCH):
            models: dict[str, Entry] = {}
            seen = []
            for number, path in enumerate(files[start : start + BATCH], start + 1):
                if file := self.changed(path.absolute()):
                    seen.append(self.take(file, models))
                progress(number, len(files), path.name)
            entries = models.values()
            self.zoo.add([e.model for e in entries], [e.vector for e in entries], {e.model.id: e.fingerprint for e in entries})
            self.zoo.note_files(seen)
        return self.answer

    def changed(self, path: Path) -> KnownFile | None:
        """What the file system says of a file, unless it is known and unchanged."""
        try:
            status = path.stat()
        except OSError as error:
            self.answer.refused[str(path)] = f"{path}: cannot be read: {error.strerror}; check the link or the access rights"
            return None
        known = self.known.get(str(path))
        if known and (known.size, known.mtime_ns) == (status.st_size, status.st_mtime_ns):
            if known.refusal:
                self.answer.refused[str(path)] = known.refusal
            else:
                self.answer.unchanged += 1
            return None
        return KnownFile(str(path), status.st_size, status.st_mtime_ns)

    def take(self, file: KnownFile, models: dict[str, "Entry"]) -> KnownFile:
        """Read one file into ``models``, by weights where an expert reads it; what became of it comes back."""
        try:
            model = self.encoder.router.open(file.path)
            fingerprint = Fingerprint.of(model.each_update())
            if not fingerprint.norm:
                raise FileUnsupported(f"{file.path}: expected a weight update, found zeros alone; the training run did nothing")
            vector, found_by = self.encode(model)
            models[model.id] = Entry(self.describe(model, found_by), vector, fingerprint.to_bytes())
        except FileError as error:
            self.answer.refused[file.path] = str(error)
            return replace(file, refusal=str(error))
        if found_by is FoundBy.WEIGHTS:
            self.answer.by_weights += 1
        else:
            self.answer.by_metadata += 1
        return replace(file, model_id=model.id)

    def encode(self, model: WeightsFile) -> tuple[Vector, FoundBy]:
        """A file's vector, or None where no expert reads its family."""
        try:
            return self.encoder.encode_file(model).numpy(), FoundBy.WEIGHTS
        except NoExpert:
            return None, FoundBy.METADATA

    def describe(self, model: WeightsFile, found_by: FoundBy) -> Model:
        """A catalogue entry of a file."""
        concept = model.header.metadata.get("class_name")
        said = model.facts
        facts = {"format": str(model.format), "ranks": model.ranks, "layers": len(model.layers)}
        written = {"title": said.title, "base_model": said.base_model, "trainer": said.trainer, "trigger_words": said.trigger_words, "tags": said.tags}
        facts |= {key: value for key, value in written.items() if value}
        return Model(model.id, name_of(model.path), model.family, found_by, str(model.path), concept, keep_preview(model, self.zoo.folder), facts)


def name_of(path: Path) -> str:
    """What people call a file: its stem, or its folder where trainers give every file the same name."""
    return path.parent.name if path.stem in GENERIC_STEMS else path.stem


def keep_preview(model: WeightsFile, zoo: Path) -> str | None:
    """A small PNG, in the zoo, of the picture that lies beside a file, if one does and can be read."""
    picture = picture_beside(model.path)
    if picture is None:
        return None
    target = zoo / "previews" / f"{model.id}.png"
    target.parent.mkdir(exist_ok=True)
    picture.save(target)
    return f"previews/{target.name}"


def picture_beside(path: Path) -> Image.Image | None:
    """The picture that lies beside a file, made small, if one does and can be read."""
    for ending in PICTURES:
        picture = path.with_name(path.stem + ending)
        if picture.is_file():
            try:
                with Image.open(picture, formats=("PNG", "JPEG", "WEBP")) as image:
                    image.thumbnail((PREVIEW, PREVIEW))
                    return image.convert("RGB")
            except (OSError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
                continue
    return None
