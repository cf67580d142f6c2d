"""``loradex expert add``: puts a shared expert into the person's own encoder, if it fits there."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from loradex.app.experts.expert_metrics import metrics_path
from loradex.app.experts.training_steps import make_space
from loradex.app.paths import MINIATURE, SHIPPED_NAME
from loradex.app.reporting import ProgressCallback
from loradex.app.sharing.checkpoint import expert_id, load_expert
from loradex.app.sharing.places import local_file, no_progress
from loradex.app.sharing.shared_expert import BUNDLED_CLIP, SharedExpert, shipped_space
from loradex.app.space.choice import check_replaceable, new_folder_beside, writable
from loradex.index import Evidence, Filter, ZooError, open_zoo
from loradex.index.opening import zoo_class
from loradex.retrieval.encoder import EVERYDAY_FILE, LABELS_FILE, SPACE_FILE
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.expert import FORMAT as EXPERT_FORMAT
from loradex.retrieval.space.clip_files import HUB, LOCAL_FOLDER, cached_file, find_clip, parse_clip_name
from loradex.retrieval.space.embedding_space import FORMAT as SPACE_FORMAT
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.labels import FORMAT as LABELS_FORMAT
from loradex.retrieval.space.text_tower import CONFIG_FILE

EXPERTS: Final = "experts"  # folder of an encoder
SHIPPED: Final = MINIATURE / "encoder"
MAX_COUNTED: Final = 100_000  # models of a zoo


@dataclass(frozen=True, slots=True)
class AddAnswer:
    """The expert that was added.

    Attributes:
        path: of its checkpoint.
        source: where it came from.
        replaced: the id of the expert whose place it took; None if there was none.
        new_encoder: whether the person's encoder was made, with the expert's space.
        text_encoder: the CLIP of the space.
        text_encoder_here: whether that is on this machine, so that texts can be searched for.
        waiting: how many models of the family in the zoo no expert has read; None if the zoo is of another space.
        next: commands to run, in this order.
    """

    id: str
    tree: str
    family: str
    path: str
    source: str
    replaced: str | None
    new_encoder: bool
    space: str
    text_encoder: str
    text_encoder_here: bool
    waiting: int | None
    next: list[str]

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex expert add --json``."""
        return asdict(self)


def add_expert(
    place: str, folder: Path, zoo: Path, *, replace: bool = False, progress: ProgressCallback = no_progress
) -> AddAnswer:
    """Add the shared expert at a place to an encoder.

    Args:
        place: a path, a folder with one, or ``hf://owner/name[@revision][/file]``.
        folder: of the person's encoder; made with the expert's space if there is none.
        zoo: in which models may wait for the expert; it need not exist.
        replace: whether an expert of the same model tree may be replaced.
        progress: called with the bytes that were fetched.

    Raises:
        FileError, CheckpointError: there is no sound expert, it does not fit, or the folder cannot be written.
        FetchError: the hub cannot be used.
    """
    with local_file(place, progress) as path:
        shared = SharedExpert.read(path)
    folder = folder.absolute()
    check_replaceable(folder)
    is_new = not (folder / SPACE_FILE).is_file()
    if not is_new:
        check_space(place, shared, folder)
    replaced = check_tree(place, shared, folder, replace)
    if is_new:
        make_encoder(shared, folder)
    else:
        with staged(shared, folder / EXPERTS) as names:
            metrics_path(folder / EXPERTS / f"{shared.tree}.safetensors").unlink(missing_ok=True)  # of the one replaced
            for name in names:
                name.rename(folder / EXPERTS / name.name)
    here = has_text_encoder(shared.text_encoder, folder)
    waiting, where = count_waiting(zoo, shared)
    commands = [] if here else filter(None, [command_of_space(shared)])
    return AddAnswer(
        id=shared.id,
        tree=shared.tree,
        family=shared.family,
        path=str(folder / EXPERTS / f"{shared.tree}.safetensors"),
        source=place,
        replaced=replaced,
        new_encoder=is_new,
        space=shared.space_name,
        text_encoder=shared.text_encoder,
        text_encoder_here=here,
        waiting=waiting,
        next=[*commands, "loradex space reindex" if waiting is None else f"loradex index {where or 'FOLDER'}"],
    )


def check_space(place: str, shared: SharedExpert, folder: Path) -> None:
    """Check that an expert maps into the space of an encoder.

    Raises:
        CheckpointError: it maps into another one.
    """
    space = Space.load(folder / SPACE_FILE)
    if space.name == shared.space_name:
        return
    command = command_of_space(shared)
    how = f"`{command}` changes it" if command else "use that space first: a folder that has it, in $LORADEX_ENCODER"
    raise CheckpointError(
        f"{place}: expected an expert of the space in use, {space.name}, found one of {shared.space_name} ({shared.text_encoder}); {how}"
    )


def check_tree(place: str, shared: SharedExpert, folder: Path, replace: bool) -> str | None:
    """Check that there is no expert of the same model tree, or that it may be replaced; returns the id of that expert.

    Raises:
        CheckpointError: there is one.
    """
    file = f"{shared.tree}.safetensors"
    for encoder in (folder, SHIPPED):
        if (taken := encoder / "categories" / file).exists():
            raise CheckpointError(
                f"{place}: expected a model tree of LoRAs, found {shared.tree}, which is {taken}'s for classifiers"
            )
    own, shipped = folder / EXPERTS / file, SHIPPED / EXPERTS / file
    there = own if own.exists() else shipped
    if not there.exists() or (there == shipped and shared.space_name != shipped_space()):
        return None
    try:
        id = expert_id(load_expert(there))
    except CheckpointError:
        id = "damaged"
    if not replace:
        same = "the same expert" if id == shared.id else f"another expert, {id},"
        how = "nothing needs to be done" if id == shared.id else "--replace puts this one in its place"
        raise CheckpointError(
            f"{place}: expected a model tree without an expert, found {shared.tree}, of which {same} is in {there}; {how}"
        )
    return id


def make_encoder(shared: SharedExpert, folder: Path) -> None:
    """Make an encoder of an expert and its space.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    with writable(folder), new_folder_beside(folder) as new:
        if shared.space_name == shipped_space():
            make_space(new, None, ())
        else:
            shared.space.save(new / SPACE_FILE, SPACE_FORMAT)
        for part, name in ((shared.labels, LABELS_FILE), (shared.everyday, EVERYDAY_FILE)):
            if part and not (new / name).exists():
                part.save(new / name, LABELS_FORMAT)
        write_expert(shared, new / EXPERTS)
        if folder.exists():
            folder.rmdir()  # it is empty, or ``check_replaceable`` had refused it
        new.rename(folder)


def write_expert(shared: SharedExpert, folder: Path) -> list[Path]:
    """Write the checkpoint of an expert and its claimed figures into a folder; returns the paths.

    Raises:
        CheckpointError: they cannot be written.
    """
    path = folder / f"{shared.tree}.safetensors"
    shared.expert.save(path, EXPERT_FORMAT)
    if shared.metrics is None:
        return [path]
    shared.metrics.save(path)
    return [path, metrics_path(path)]


@contextmanager
def staged(shared: SharedExpert, folder: Path) -> Iterator[list[Path]]:
    """Yield the files of an expert, complete, in a folder inside the one they are to be moved to; then remove the rest.

    Raises:
        CheckpointError: they cannot be written.
    """
    parts = folder / f".{shared.tree}.adding"
    try:
        with writable(folder.parent):
            shutil.rmtree(parts, ignore_errors=True)  # of a run that was killed
            parts.mkdir(parents=True)
            yield write_expert(shared, parts)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def command_of_space(shared: SharedExpert) -> str | None:
    """The command that has the space of an expert used; None if no command makes that space again."""
    if shared.space_name == shipped_space():
        return f"loradex space use {SHIPPED_NAME}"
    if shared.text_encoder == BUNDLED_CLIP:
        return "loradex space use FOLDER"  # of the CLIP that its maker had
    return f"loradex space use {shared.text_encoder}" if shared.space.settings.get("made_from") else None


def has_text_encoder(name: str, folder: Path) -> bool:
    """Whether the text encoder of an encoder is on this machine."""
    if (folder / "clip" / CONFIG_FILE).is_file():
        return True
    if name.startswith(LOCAL_FOLDER):
        return False
    with suppress(CheckpointError, OSError):
        return (
            find_clip(parse_clip_name(name), cached_file) is not None if name.startswith(HUB) or "/" in name else False
        )
    return False


def count_waiting(zoo: Path, shared: SharedExpert) -> tuple[int | None, str | None]:
    """How many models of a zoo are of an expert's family and were read by none, and the folder that holds them all.

    Returns:
        None in place of the number if the zoo is of another space; None in place of the folder if there is none.
    """
    try:
        if not zoo_class(zoo).exists(zoo):
            return 0, None
        with open_zoo(zoo, read_only=True) as opened:
            if opened.space != shared.space_name:
                return None, None
            paths: list[str | None] = []
            for model in opened.models(Filter(families=(shared.family,))):
                if Evidence.PICTURE not in model.evidence:
                    paths.append(model.path)
                if len(paths) >= MAX_COUNTED:
                    break
    except ZooError:
        return 0, None
    return len(paths), common_folder([path for path in paths if path and os.path.isabs(path)])  # noqa: PTH117


def common_folder(paths: list[str]) -> str | None:
    """The folder that holds all files; None if there is none, or only the root."""
    with suppress(ValueError):
        folder = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
        return folder if folder and folder != os.path.dirname(folder) else None  # noqa: PTH120
    return None
