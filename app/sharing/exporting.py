"""``loradex expert export``: writes an expert with its space into one file that travels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loradex.app.experts.expert_metrics import load_metrics
from loradex.app.sharing.checkpoint import Checkpoint, load_expert
from loradex.app.sharing.shared_expert import SHAPE_ERRORS, SharedExpert, first_line, shipped_space
from loradex.retrieval.encoder import EVERYDAY_FILE, LABELS_FILE, SPACE_FILE
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.space.embedding_space import FORMAT as SPACE_FORMAT
from loradex.retrieval.space.labels import FORMAT as LABELS_FORMAT

SUFFIX: Final = ".safetensors"


@dataclass(frozen=True, slots=True)
class ExportAnswer:
    """The file that was written, and what it holds.

    Attributes:
        file: its path.
        bytes: its size.
        text_encoder: the CLIP of the space, which is not in it.
    """

    file: str
    bytes: int
    id: str
    tree: str
    family: str
    space: str
    text_encoder: str

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex expert export --json``."""
        return asdict(self)


def export_expert(tree: str, file: Path, folders: Sequence[Path], *, replace: bool = False) -> ExportAnswer:
    """Write the expert of a model tree with its space, labels and figures into one file.

    Args:
        tree: the model tree.
        file: to write; in a folder, the file is named by the tree.
        folders: the encoders, in the order in which they are looked at.
        replace: whether a file that is there may be written over.

    Raises:
        CheckpointError: there is no such expert, a part of it is damaged, or the file cannot be written.
    """
    shared = collect(find_expert(tree, folders))
    target = file / f"{tree}{SUFFIX}" if file.is_dir() else file
    if target.exists() and not replace:
        raise CheckpointError(f"{target}: expected no file, found one; name another, or write over it with --replace")
    shared.write(target)
    size = target.stat().st_size
    return ExportAnswer(str(target), size, shared.id, tree, shared.family, shared.space_name, shared.text_encoder)


def find_expert(tree: str, folders: Sequence[Path]) -> Path:
    """The checkpoint of the expert of a model tree, in the first folder that has one.

    Raises:
        CheckpointError: none has, or it is an expert for classifiers.
    """
    found = {
        path.stem: path for folder in reversed(folders) for path in sorted((folder / "experts").glob(f"*{SUFFIX}"))
    }
    if tree in found:
        return found[tree]
    if any(tree in names(folder / "categories") for folder in folders):
        raise CheckpointError(
            f"{tree}: expected an expert for LoRAs, found one for classifiers, which cannot do without the weights of its ancestor; "
            "copy its encoder folder"
        )
    known = ", ".join(sorted(found)) or "none"
    raise CheckpointError(
        f"{ascii(tree)[1:-1][:100]}: expected a model tree with an expert, found {known}; see `loradex expert list`"
    )


def names(folder: Path) -> set[str]:
    """The names of the checkpoints in a folder."""
    return {path.stem for path in folder.glob(f"*{SUFFIX}")}


def collect(checkpoint: Path) -> SharedExpert:
    """An expert of this machine with the space, the labels and the figures beside it.

    Raises:
        CheckpointError: a file is missing or damaged, or cannot be shared.
    """
    folder = checkpoint.parents[1]
    space, expert = Checkpoint.load(folder / SPACE_FILE, SPACE_FORMAT), load_expert(checkpoint)
    # the everyday texts of the space that ships are shipped too
    wanted = (LABELS_FILE,) if expert.settings.get("space") == shipped_space() else (LABELS_FILE, EVERYDAY_FILE)
    labels, everyday = (
        Checkpoint.load(folder / name, LABELS_FORMAT) if name in wanted and (folder / name).is_file() else None
        for name in (LABELS_FILE, EVERYDAY_FILE)
    )
    shared = SharedExpert(expert, space, labels, everyday, load_metrics(checkpoint))
    try:
        shared.check()
    except SHAPE_ERRORS as error:
        raise CheckpointError(
            f"{checkpoint}: expected an expert that others can use, found {first_line(error)}; make its space with `loradex space use`, and train it there"
        ) from None
    return shared
