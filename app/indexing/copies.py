"""Files with the same weights: one of them gives the row of their model, and each keeps its own name and words."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from loradex.app.indexing.file_reader import OWN_WORDS, ZooEntry, display_name
from loradex.index import AnyZoo, KnownFile, Model
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


def hand_over(zoo: AnyZoo, ids: Sequence[str], gone: Collection[str]) -> None:
    """Let another file give the row of each model of ``ids`` whose row is that of a file in ``gone``.

    Files that exist come first; a model without any other file is left as it is.

    Raises:
        ZooError: the zoo cannot be written.
    """
    files = zoo.files_by_model(ids)
    rows = []
    for id, model in zoo.models_by_id(ids).items():
        remaining = sorted((file for file in files.get(id, []) if file.path not in gone), key=lambda file: file.path)
        if model.path in gone and remaining:
            rows.append(row_of_file(model, next((file for file in remaining if exists(file.path)), remaining[0])))
    if rows:
        positions = zoo.positions_by_id([row.id for row in rows])
        zoo.add(rows, [positions.get(row.id) for row in rows])
