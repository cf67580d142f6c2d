"""Files with the same weights: one of them gives the row of their model, and each keeps its own name and words."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loradex.app.indexing.evidence.preview import PreviewPlacer, open_copy
from loradex.app.indexing.file_reader import OWN_WORDS, ZooEntry, display_name
from loradex.app.indexing.model_pictures import pictures_of_model
from loradex.app.indexing.picture_mark import has_pictures
from loradex.app.pictures import PictureFinder
from loradex.index import AnyZoo, Evidence, KnownFile, Model, Position
from loradex.retrieval.remote import is_remote


@dataclass(frozen=True, slots=True)
class OtherFiles:
    """The other files of a model, as its zoo knows them when one file was read.

    Attributes:
        present: paths of those that still exist; a remote one counts as such.
        gone: paths of the others.
    """

    present: frozenset[str]
    gone: tuple[str, ...]

    @classmethod
    def of(cls, path: str, known: Iterable[KnownFile]) -> "OtherFiles":
        """Look for all known files of a model but that at ``path``."""
        others = [file.path for file in known if file.path != path]
        present = frozenset(other for other in others if exists(other))
        return cls(present, tuple(other for other in others if other not in present))


def exists(path: str) -> bool:
    """Whether a known file is still there, as far as can be told without asking a server."""
    return is_remote(path) or Path(path).exists()


def own_words(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that a file states itself, in its header and side-cars."""
    return {name: facts[name] for name in OWN_WORDS if name in facts}


def noted(file: KnownFile, entry: ZooEntry) -> KnownFile:
    """A file as the zoo notes it, with its own name and words."""
    return replace(file, model_id=entry.model.id, name=entry.model.name, facts=own_words(entry.model.facts))


def row_of_file(model: Model, file: KnownFile) -> Model:
    """The row of a model as one of its files gives it: name, path and words are the file's, the rest stays."""
    if file.name is None:  # noted by an older Loradex, without its words
        name = file.path.rpartition("/")[2] if is_remote(file.path) else display_name(Path(file.path))
        return replace(model, name=name, path=file.path)
    facts = {name: value for name, value in model.facts.items() if name not in OWN_WORDS}
    return replace(model, name=file.name, path=file.path, facts=facts | own_words(file.facts))


def with_row_of(model: Model, row: Model) -> Model:
    """What was read of the weights of one file, with the name, path and words of another's row."""
    facts = {name: value for name, value in model.facts.items() if name not in OWN_WORDS}
    return replace(row, family=model.family, facts=facts | own_words(row.facts))


def hand_over(
    zoo: AnyZoo, ids: Sequence[str], gone: Iterable[KnownFile], placer: PreviewPlacer, finder: PictureFinder
) -> None:
    """Let other files give what the files in ``gone`` gave to the models of ``ids``: the row, and the preview.

    Each file in ``gone`` has left the model that it names, and may hold another now.

    Files that exist come first; a model without any other file is left as it is.

    Raises:
        ZooError: the zoo cannot be written.
    """
    files, positions = zoo.files_by_model(ids), zoo.positions_by_id(ids)
    left: dict[str | None, dict[str, KnownFile]] = {}
    for file in gone:
        left.setdefault(file.model_id, {})[file.path] = file
    rows, placed = [], []
    for id, model in zoo.models_by_id(ids).items():
        lost = left.get(id, {})
        remaining = sorted((file for file in files.get(id, []) if file.path not in lost), key=lambda file: file.path)
        lost_row, lost_pictures = model.path in lost, any(has_pictures(file.reader) for file in lost.values())
        if not remaining or not (lost_row or lost_pictures):
            continue
        if lost_row:
            model = row_of_file(model, next((file for file in remaining if exists(file.path)), remaining[0]))
        rows.append(model)
        of_model = dict(positions.get(id, {}))
        old = of_model.pop(Evidence.PREVIEW, None) if lost_pictures else None
        if old and (preview := remaining_preview(old, model.path, remaining, placer, finder)):
            of_model[Evidence.PREVIEW] = preview
        placed.append(of_model)
    if rows:
        zoo.add(rows, placed)


def remaining_preview(
    old: Position, row: str | None, files: Sequence[KnownFile], placer: PreviewPlacer, finder: PictureFinder
) -> Position | None:
    """The position by the pictures of remaining files; the old one if those cannot be read now, None without any."""
    if not any(has_pictures(file.reader) for file in files):
        return None
    pictures = [open_copy(copy) for copy in pictures_of_model(row, files, finder)]
    return placer.place([pictures])[0] or old
