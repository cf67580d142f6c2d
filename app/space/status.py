"""``loradex space show``: which space is in use, where its files lie, and whether the zoo is of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loradex.index import open_zoo
from loradex.index.opening import zoo_class
from loradex.retrieval.encoder import LABELS_FILE, SPACE_FILE, Encoder
from loradex.retrieval.space.clip_files import LOCAL_FOLDER


@dataclass(frozen=True, slots=True)
class ZooOfSpace:
    """A zoo, and whether its vectors are of the space in use."""

    zoo: str
    space: str
    models: int
    fits: bool


@dataclass(frozen=True, slots=True)
class SpaceStatus:
    """The space in use.

    Attributes:
        space: its name, to which experts and zoos are bound.
        text_encoder: its CLIP.
        dim: of its vectors.
        templates: prompts with ``{}`` in place of a text.
        folder: of its files.
        files: their sizes in bytes, by path.
        labels: the number of default labels.
        experts: the model trees whose LoRAs are read.
        categories: the model trees whose classifiers are read.
        zoo: the person's zoo; None if there is none yet.
    """

    space: str
    text_encoder: str
    dim: int
    templates: tuple[str, ...]
    folder: str
    files: dict[str, int]
    labels: int
    experts: list[str]
    categories: list[str]
    zoo: ZooOfSpace | None

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex space show --json``."""
        return asdict(self)


def space_status(folders: Sequence[Path], zoo: Path) -> SpaceStatus:
    """Look at the space of the first of some encoder folders, and at a zoo.

    Raises:
        CheckpointError: a file of the encoder is missing or damaged.
        ZooError: the zoo cannot be read.
    """
    encoder = Encoder.load(*folders)
    space = encoder.space
    clip = encoder.text_encoder_name
    paths = [encoder.folder / SPACE_FILE, encoder.folder / LABELS_FILE, *encoder.files[1:]]
    if clip.startswith(LOCAL_FOLDER):
        paths += sorted(Path(clip.removeprefix(LOCAL_FOLDER)).iterdir())
    of_zoo = None
    if zoo_class(zoo).exists(zoo):
        with open_zoo(zoo, read_only=True) as opened:
            of_zoo = ZooOfSpace(str(zoo), opened.space, len(opened), opened.space == space.name)
    return SpaceStatus(
        space.name,
        space.text_encoder,
        space.dim,
        space.templates,
        str(encoder.folder),
        {str(path): path.stat().st_size for path in paths if path.is_file()},
        len(encoder.default_labels.names) if encoder.has_labels else 0,
        list(encoder.experts),
        list(encoder.categories),
        of_zoo,
    )
