"""One safetensors file that holds all that an empty home needs to use an expert, except the text encoder.

The header has the name of the format with its version, the settings as JSON, and a SHA-256 over these settings and all
tensors, so that no bit can change unnoticed. Tensors are named ``expert.NAME``, ``space.NAME``, ``labels.vectors`` and
``everyday.vectors``; the settings of each part stand under the same name. Nothing that the file says is believed before
it is checked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn, Self

import torch
from torch import Tensor

from loradex.app.experts.expert_metrics import CLAIMED, ExpertMetrics
from loradex.app.paths import MINIATURE
from loradex.app.sharing.checkpoint import Checkpoint, content_digest, expert_id
from loradex.retrieval.checkpoint import save_tensors
from loradex.retrieval.encoder import SPACE_FILE
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layout import object_of_unique_keys
from loradex.retrieval.probex.checkpoint_checks import check_expert
from loradex.retrieval.probex.expert import FORMAT as EXPERT_FORMAT
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.provenance import is_plain_text
from loradex.retrieval.space.clip_files import LOCAL_FOLDER
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.text_encoder import MAX_TEXT_LENGTH

FORMAT: Final = "loradex-shared-expert-1"
DIGEST: Final = "sha256"  # in the header
PARTS: Final = ("expert", "space", "labels", "everyday")
MAX_FILE_BYTES: Final = 2**30
MAX_SETTINGS: Final = 8 * 2**20  # characters
MAX_DIM: Final = 8192  # of a space
MAX_NAMES: Final = 200_000  # of labels
MAX_TEMPLATES: Final = 1000
DTYPES: Final = ("F16", "F32")
BUNDLED_CLIP: Final = f"{LOCAL_FOLDER}clip"  # in an encoder's own folder; the miniature's, which ships
EXPORT: Final = "`loradex expert export TREE FILE` writes one"
SHAPE_ERRORS: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)  # of code that meets settings or tensors of another form


@dataclass(frozen=True, slots=True, eq=False)
class SharedExpert:
    """An expert with all that belongs to it.

    Attributes:
        expert: as its checkpoint has it, without paths of one machine.
        space: that it maps into.
        labels: the default labels of that space; None if there are none.
        everyday: the texts with which evidence is compared, likewise.
        metrics: its figures, which are a claim; None if there are none.
    """

    expert: Checkpoint
    space: Checkpoint
    labels: Checkpoint | None = None
    everyday: Checkpoint | None = None
    metrics: ExpertMetrics | None = None

    @property
    def id(self) -> str:
        """The id of the expert."""
        return expert_id(self.expert)

    @property
    def tree(self) -> str:
        """The model tree that the expert reads."""
        return str(self.expert.settings["tree"])

    @property
    def family(self) -> str:
        """The family of that tree."""
        return str(self.expert.settings["family"])

    @property
    def space_name(self) -> str:
        """The name of the space."""
        return str(self.expert.settings["space"])

    @property
    def text_encoder(self) -> str:
        """The CLIP of the space, which the file does not hold."""
        return str(self.space.settings["text_encoder"])

    @property
    def parts(self) -> dict[str, Checkpoint]:
        """The checkpoints in it, by their names in the file."""
        return {name: part for name in PARTS if (part := getattr(self, name)) is not None}

    def write(self, path: Path) -> None:
        """Write the file; the same expert makes the same bytes.

        Raises:
            CheckpointError: it cannot be written.
        """
        settings: dict[str, Any] = {name: dict(part.settings) for name, part in self.parts.items()}
        settings |= {"id": self.id, "expert_format": EXPERT_FORMAT}
        if self.metrics:
            settings["metrics"] = {"on": self.metrics.on, "metrics": self.metrics.metrics}
        text = json.dumps(settings, sort_keys=True)
        tensors = {f"{part}.{name}": each for part, kept in self.parts.items() for name, each in kept.tensors.items()}
        save_tensors(
            path, tensors, {"format": FORMAT, "settings": text, DIGEST: content_digest((FORMAT, text), tensors)}
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and check a file of anybody's.

        Raises:
            FileError: it is no sound safetensors file.
            CheckpointError: it is no shared expert, was changed after it was written, or holds what does not fit.
        """
        header = Header.read(path)
        check_header(header)
        tensors = header.load(header.tensors)
        text, stated = header.metadata["settings"], header.metadata[DIGEST]
        if (found := content_digest((FORMAT, text), tensors)) != stated:
            refuse(
                path, f"content of SHA-256 {ascii(stated)[:68]}", f"{found}: it was damaged or changed; get it again"
            )
        try:
            shared = cls.parse(json.loads(text, object_pairs_hook=object_of_unique_keys), tensors)
        except SHAPE_ERRORS as error:
            refuse(path, "settings and tensors of an expert", f"{first_line(error)}; do not use it")
        if shared[1] != shared[0].id:
            refuse(path, f"the expert {ascii(shared[1])[:40]}, as it says", f"{shared[0].id}; do not use it")
        return shared[0]

    @classmethod
    def parse(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[Self, Any]:
        """Make it of checked settings and tensors; returns also the id that the settings state.

        Raises:
            One of ``SHAPE_ERRORS``: a part is missing or does not fit.
        """
        if settings["expert_format"] != EXPERT_FORMAT:
            raise ValueError(f"an expert of format {ascii(settings['expert_format'])[:40]}; use another Loradex")
        parts = {name: part_of(name, settings, tensors) for name in PARTS if settings.get(name) is not None}
        metrics = settings.get("metrics")
        claim = None if metrics is None else ExpertMetrics.parse(metrics | {"measured_by": CLAIMED})
        shared = cls(**parts, metrics=claim)
        shared.check()
        return shared, settings["id"]

    def check(self) -> None:
        """Check all parts, alone and together.

        Raises:
            One of ``SHAPE_ERRORS``: a part is missing or does not fit.
        """
        for part, kept in self.parts.items():
            for name, tensor in kept.tensors.items():
                if not torch.isfinite(tensor).all():
                    raise ValueError(f"numbers that are not finite in tensor {part}.{name[:120]}")
        expert = self.expert
        check_expert(expert.settings, {name: tuple(tensor.shape) for name, tensor in expert.tensors.items()})
        check_space(self)
        for labels in filter(None, (self.labels, self.everyday)):
            check_labels(labels, len(self.space.tensors["centre"]))
        Expert.from_checkpoint(expert.settings, expert.tensors)


@cache
def shipped_space() -> str:
    """The name of the space that ships.

    Raises:
        CheckpointError: the installation lacks its file.
    """
    return Space.load(MINIATURE / "encoder" / SPACE_FILE).name


def check_header(header: Header) -> None:
    """Check format, dtypes and sizes by the header alone.

    Raises:
        CheckpointError: it is no shared expert, or out of bounds.
    """
    kind = header.metadata.get("format")
    if kind == EXPERT_FORMAT:
        refuse(header.path, "a shared expert", f"an expert without its space; {EXPORT}")
    if kind != FORMAT:
        refuse(header.path, f"a shared expert ({FORMAT})", f"{ascii(kind)[:60]}; {EXPORT}")
    if header.metadata.keys() != {"format", "settings", DIGEST}:
        refuse(header.path, f"settings and {DIGEST} in the header", "others; get it again")
    if header.size > MAX_FILE_BYTES:
        refuse(header.path, f"at most {MAX_FILE_BYTES >> 20} MiB", f"{header.size >> 20}; do not use it")
    if len(header.metadata["settings"]) > MAX_SETTINGS:
        refuse(header.path, f"settings of at most {MAX_SETTINGS:,} characters", "longer ones; do not use it")
    for name, info in header.tensors.items():
        if info.dtype not in DTYPES:
            refuse(
                header.path, f"tensors of {' or '.join(DTYPES)}", f"{info.dtype} in {ascii(name)[:120]}; do not use it"
            )


def part_of(part: str, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint of one part."""
    if not isinstance(settings[part], dict):
        raise ValueError(f"no settings of the {part}")
    prefix = f"{part}."
    own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    return Checkpoint(settings[part], own)


def check_space(shared: SharedExpert) -> None:
    """Check that the space is sound, and the one that the expert maps into.

    Raises:
        One of ``SHAPE_ERRORS``: it is not.
    """
    settings, tensors = shared.space.settings, shared.space.tensors
    (dim,) = tensors["centre"].shape
    if not 0 < dim <= MAX_DIM or tensors["picture_centre"].shape != (dim,):
        raise ValueError(f"centres of {dim} numbers")
    if (dim,) != tuple(shared.expert.tensors["background.mean"].shape):
        raise ValueError(f"an expert for vectors of another length than {dim}")
    templates, name, made_from = settings["templates"], settings["text_encoder"], settings.get("made_from", "")
    if not isinstance(templates, list | tuple) or not 0 < len(templates) <= MAX_TEMPLATES:
        raise ValueError("no prompts of a space")
    if not all(map(is_plain_text, (*templates, name, made_from))):
        raise ValueError("texts of a space with control characters, or too long ones")
    if is_path(name):
        raise ValueError(f"a text encoder at a path, {ascii(name)[:80]}")
    space = Space(name, tuple(templates), tensors["centre"].float(), tensors["picture_centre"].float(), made_from)
    if space.name != shared.expert.settings["space"]:
        raise ValueError(f"an expert of space {shared.expert.settings['space']} with the space {space.name}")


def is_path(text_encoder: str) -> bool:
    """Whether a text encoder is named by a path of some machine, beside an encoder's own folder."""
    path = text_encoder.removeprefix(LOCAL_FOLDER)
    return (text_encoder.startswith(LOCAL_FOLDER) and text_encoder != BUNDLED_CLIP) or (
        path.startswith(("/", "~", ".")) or "\\" in path or ".." in path.split("/")
    )


def check_labels(part: Checkpoint, dim: int) -> None:
    """Check a list of labels and their vectors.

    Raises:
        One of ``SHAPE_ERRORS``: it is not sound.
    """
    names, vectors = part.settings["names"], part.tensors["vectors"]
    if (
        not isinstance(names, list | tuple)
        or len(names) > MAX_NAMES
        or not all(is_plain_text(each, MAX_TEXT_LENGTH) for each in names)
    ):
        raise ValueError("no list of labels, or one with control characters")
    if tuple(vectors.shape) != (len(names), dim):
        raise ValueError(f"{len(names)} labels with vectors of shape {tuple(vectors.shape)}")


def first_line(error: BaseException) -> str:
    """One line that says what was wrong."""
    text = f"no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
    return ascii(" ".join(text.split()))[1:-1][:300]


def refuse(path: Path, expected: str, found: str) -> NoReturn:
    """Raise the error about a file."""
    raise CheckpointError(f"{path}: expected {expected}, found {found}")
