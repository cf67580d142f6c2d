"""``loradex expert list`` and ``show``: the experts of this machine, how they were made, and how good they are."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from loradex.app.bases import Bases
from loradex.app.bases.errors import NoBase
from loradex.app.experts.expert_metrics import ExpertMetrics, load_metrics
from loradex.app.paths import MINIATURE
from loradex.app.sharing.checkpoint import Checkpoint, expert_id, load_expert
from loradex.app.sharing.exporting import SUFFIX, find_expert
from loradex.app.sharing.shared_expert import SharedExpert
from loradex.retrieval.encoder import SPACE_FILE
from loradex.retrieval.errors import CheckpointError, FileError, LoradexError
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.provenance import TRAINED, Provenance
from loradex.retrieval.space.embedding_space import Space

READY: Final = "ready"
HIDDEN: Final = "hidden"  # by another expert of the same model tree
OTHER_SPACE: Final = "another space"
DAMAGED: Final = "damaged"
SHIPS, OWN = "ships", "own"
# whether the base model at hand is the one that an expert was made from
SAME, OTHER, NOT_HERE, NOT_NOTED = "the same", "another", "none at hand", "not noted"
BaseFinder = Callable[[str], str | None]  # a family -> the fingerprint of its base model at hand


@dataclass(frozen=True, slots=True)
class ListedExpert:
    """An expert on this machine, or in a shared file.

    Attributes:
        kind: ``trained`` or ``grown``.
        task: ``draws`` for LoRAs and what they draw, ``categories`` for classifiers.
        source: ``ships``, ``own``, or ``file``.
        state: ``ready``, ``hidden`` by another expert of its tree, of ``another space``, or ``damaged``.
        reason: one line about a state that is not ``ready``.
        base: whether the base model at hand is the one it was made from.
        provenance: None if its checkpoint does not say.
        figures: its metrics, with who measured them; None if there are none.
        layers: how many it reads.
    """

    tree: str
    family: str
    id: str | None
    kind: str
    task: str
    space: str
    path: str
    source: str
    state: str
    reason: str | None
    base: str
    provenance: dict[str, Any] | None
    figures: dict[str, Any] | None
    layers: int
    bytes: int

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex expert list --json``."""
        return asdict(self)


def list_experts(folders: Sequence[Path]) -> list[ListedExpert]:
    """List the experts of some encoders, in the order in which these are used.

    Raises:
        CheckpointError: the space of the first is damaged.
        QueryError, RegistryError: the base models that were named cannot be listed.
    """
    space, trees, base_of = Space.load(folders[0] / SPACE_FILE).name, set[str](), bases_at_hand()
    listed = []
    for folder in folders:
        for subfolder in ("experts", "categories"):
            for path in sorted((folder / subfolder).glob(f"*{SUFFIX}")):
                expert = describe_file(path, base_of)
                if expert.state == READY and expert.space != space:
                    expert = changed(expert, OTHER_SPACE, f"it is of space {expert.space}; {space} is in use")
                elif expert.state == READY and expert.tree in trees:
                    expert = changed(expert, HIDDEN, f"another expert of {expert.tree} comes before it")
                elif expert.state == READY:
                    trees.add(expert.tree)
                listed.append(expert)
    return listed


def changed(expert: ListedExpert, state: str, reason: str) -> ListedExpert:
    """An expert in another state."""
    return ListedExpert(**{**asdict(expert), "state": state, "reason": reason})


def show_expert(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """All that is known of an expert, by its model tree or as a shared file.

    Raises:
        CheckpointError: there is none by that name, or it is damaged.
        FileError: a file is no sound safetensors file.
    """
    base_of = bases_at_hand()
    if Path(name).is_file():
        shared = SharedExpert.read(Path(name))
        expert = listed_shared(shared, Path(name), base_of)
        labels = len(shared.labels.settings["names"]) if shared.labels else 0
        space = {"text_encoder": shared.text_encoder, "templates": list(shared.space.settings["templates"])}
        return expert.document() | {"settings": readable(shared.expert.settings), "labels": labels} | space
    path = find_expert(name, folders)
    expert = describe_file(path, base_of)
    if expert.state == DAMAGED:
        raise CheckpointError(str(expert.reason))
    of = Space.load(path.parents[1] / SPACE_FILE)
    space = {"text_encoder": of.text_encoder, "templates": list(of.templates)}
    return expert.document() | {"settings": readable(load_expert(path).settings)} | space


def readable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an expert without what stands elsewhere in the answer."""
    elsewhere = ("tree", "family", "space", "provenance", "base")
    return {name: value for name, value in settings.items() if name not in elsewhere}


def listed_shared(shared: SharedExpert, path: Path, base_of: BaseFinder) -> ListedExpert:
    """A shared file as an expert of a list."""
    return from_checkpoint(shared.expert, shared.metrics, path, "file", base_of)


def describe_file(path: Path, base_of: BaseFinder) -> ListedExpert:
    """An expert in an encoder's folder, which may be damaged."""
    source = SHIPS if path.is_relative_to(MINIATURE) else OWN
    try:
        if path.parent.name == "categories":
            return of_classifiers(path, source)
        Expert.load(path)
        return from_checkpoint(load_expert(path), load_metrics(path), path, source, base_of)
    except LoradexError as error:
        task = "categories" if path.parent.name == "categories" else "draws"
        return ListedExpert(
            path.stem, "", None, TRAINED, task, "", str(path), source, DAMAGED, str(error), NOT_NOTED, None, None, 0, 0
        )


def from_checkpoint(
    checkpoint: Checkpoint, metrics: ExpertMetrics | None, path: Path, source: str, base_of: BaseFinder
) -> ListedExpert:
    """An expert of LoRAs as an expert of a list."""
    settings = checkpoint.settings
    noted = settings.get("provenance")
    made = Provenance.parse(noted) if noted else None
    config = settings.get("sketch") or settings["probes"]
    return ListedExpert(
        tree=str(settings["tree"]),
        family=str(settings["family"]),
        id=expert_id(checkpoint),
        kind=made.made if made else TRAINED,
        task="draws",
        space=str(settings["space"]),
        path=str(path),
        source=source,
        state=READY,
        reason=None,
        base=compare_bases(made, base_of),
        provenance=made.document() if made else None,
        figures=metrics.document() if metrics else None,
        layers=len(config["layers"]),
        bytes=path.stat().st_size,
    )


def of_classifiers(path: Path, source: str) -> ListedExpert:
    """An expert for classifiers as an expert of a list."""
    expert, metrics = CategoryExpert.load(path), load_metrics(path)
    return ListedExpert(
        expert.tree,
        expert.family,
        None,
        TRAINED,
        "categories",
        expert.space,
        str(path),
        source,
        READY,
        None,
        NOT_NOTED,
        None,
        metrics.document() if metrics else None,
        len(expert.layers),
        path.stat().st_size,
    )


def bases_at_hand() -> BaseFinder:
    """Find the fingerprint of a family's base model; each is opened once.

    Raises:
        QueryError, RegistryError: the base models that were named cannot be listed.
    """
    bases = Bases.load()

    @cache
    def fingerprint(family: str) -> str | None:
        try:
            base = bases.for_family(family)
        except (NoBase, FileError):
            return None
        return base.fingerprint if base else None

    return fingerprint


def compare_bases(made: Provenance | None, base_of: BaseFinder) -> str:
    """Whether the base model at hand is the one that an expert was made from."""
    if made is None or made.fingerprint is None:
        return NOT_NOTED
    at_hand = base_of(made.family)
    return NOT_HERE if at_hand is None else SAME if at_hand == made.fingerprint else OTHER
