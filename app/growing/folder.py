"""The folder of a run: Model-J's layout, with the pictures of each concept beside its LoRA."""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image

from loradex.app.growing.word_list import Word, slug
from loradex.app.pictures import BadPicture, read_picture
from loradex.app.previews import save_png, write_atomically
from loradex.retrieval.checkpoint import save_tensors
from loradex.retrieval.errors import QueryError
from loradex.retrieval.lora.update import LayerUpdate
from loradex.retrieval.training.labelled_loras import split_of

SETTINGS_FILE: Final = "grow.json"
CONTACT_SHEET: Final = "contact-sheet.png"
WEIGHTS: Final = "pytorch_lora_weights.safetensors"
VALIDATION: Final = "val_holdout"


@dataclass(frozen=True, slots=True)
class Concept:
    """A word with its files; of a word with several LoRAs, each has pictures of its own.

    Attributes:
        word: what is drawn.
        folder: of its LoRA.
        pictures: the paths of its pictures.
        first: the number of its first picture among all of the word.
    """

    word: str
    folder: Path
    pictures: tuple[Path, ...]
    first: int = 0

    @property
    def weights(self) -> Path:
        """The path of its LoRA."""
        return self.folder / WEIGHTS

    def read_pictures(self) -> list[Image.Image]:
        """Read the pictures that are there.

        Raises:
            QueryError: one cannot be read.
        """
        try:
            return [read_picture(str(path)) for path in self.pictures if path.is_file()]
        except BadPicture as error:
            raise QueryError(f"{error}, or delete it, so that it is drawn again") from None

    def save_lora(self, updates: dict[str, LayerUpdate], component: str, metadata: dict[str, str]) -> None:
        """Write its LoRA, in half precision, with the word in the header.

        Args:
            updates: by layer, as diffusers names it.
            component: ``unet`` or ``transformer``.
            metadata: further metadata.

        Raises:
            CheckpointError: the file cannot be written.
        """
        tensors = {}
        for layer, update in updates.items():
            tensors[f"{component}.{layer}.lora.down.weight"] = update.down.half()
            tensors[f"{component}.{layer}.lora.up.weight"] = update.up.half()
        save_tensors(self.weights, tensors, {"format": "pt", "class_name": self.word} | metadata)


def concepts_in(folder: Path, words: Sequence[Word], pictures: int, loras: int = 1) -> list[Concept]:
    """The concepts of a run, so many for each word, with so many pictures each.

    A tenth of the words, by their names, is for validation.
    """
    concepts = []
    for copy in range(loras):
        for word in words:
            split = VALIDATION if split_of(word.text) == VALIDATION else "train"
            place = folder / split / (f"{slug(word.text)}.{copy + 1}" if copy else slug(word.text))
            paths = tuple(picture_path(place, number) for number in range(pictures))
            concepts.append(Concept(word.text, place, paths, copy * pictures))
    return concepts


def picture_path(folder: Path, number: int) -> Path:
    """The path of a picture beside a LoRA, by which ``loradex.app.pictures`` finds it."""
    stem = Path(WEIGHTS).stem
    return folder / (f"{stem}.preview.{number + 1}.png" if number else f"{stem}.preview.png")


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture; its folder is made if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(picture, path)


def check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Note the settings of a run in its folder, or compare them with those of the run that began there.

    Raises:
        QueryError: that run had others, so that its files do not fit to those of this run.
    """
    path = folder / SETTINGS_FILE
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        before = json.loads(path.read_text("utf-8"))
        changed = [name for name in settings if before.get(name) != settings[name]]
        if changed:
            name = changed[0]
            raise QueryError(
                f"{folder}: expected a run with {name} {before.get(name)}, as it was begun, found {settings[name]}; "
                "give the same options, or another --folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(settings, indent=1) + "\n"
    write_atomically(path, lambda part: part.write_text(text, "utf-8"))


def free_bytes(folder: Path) -> int:
    """The space that is left on the disk of a folder, which may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(os.fspath(folder)).free
