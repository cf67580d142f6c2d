"""``loradex expert remove``: deletes an expert of the person's own encoder."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loradex.app.experts.expert_metrics import metrics_path
from loradex.app.sharing.exporting import SUFFIX, names
from loradex.retrieval.errors import CheckpointError

KINDS: Final = ("experts", "categories")  # folders of an encoder


@dataclass(frozen=True, slots=True)
class RemoveAnswer:
    """The expert that was removed, and how many the encoder still has."""

    tree: str
    path: str
    left: int

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex expert remove --json``."""
        return asdict(self)


def find_own(tree: str, folder: Path) -> Path:
    """The checkpoint of the person's own expert of a model tree.

    Raises:
        CheckpointError: there is none.
    """
    own = {name: folder / kind / f"{name}{SUFFIX}" for kind in KINDS for name in sorted(names(folder / kind))}
    if tree not in own:
        known = ", ".join(own) or "none"
        raise CheckpointError(
            f"{ascii(tree)[1:-1][:100]}: expected an expert in {folder}, found {known}; those that ship stay, see `loradex expert list`"
        )
    return own[tree]


def remove_expert(path: Path) -> RemoveAnswer:
    """Delete the checkpoint of an expert, then its figures.

    Raises:
        CheckpointError: it cannot be deleted.
    """
    try:
        path.unlink()
        metrics_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path}: expected to delete it, found: {error}; check the access rights") from None
    return RemoveAnswer(path.stem, str(path), sum(len(names(path.parents[1] / kind)) for kind in KINDS))
