"""``loradex space use``: makes the person's own space from a CLIP, and puts the one that was in use aside."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from loradex.app.reporting import ProgressCallback
from loradex.index.errors import ZooError
from loradex.index.lock import WriterLock
from loradex.retrieval.encoder import CLIP_FOLDER, LABELS_FILE, SPACE_FILE
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.space.clip_download import Download
from loradex.retrieval.space.clip_files import (
    LOCAL_FOLDER,
    ClipFiles,
    cached_file,
    find_clip,
    local_clip,
    parse_clip_name,
)
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.making import make_space

Confirm = Callable[[Download], None]  # raises an error if nothing may be downloaded


@dataclass(frozen=True, slots=True)
class UseAnswer:
    """The space that is in use now.

    Attributes:
        space: its name; None for the shipped one.
        text_encoder: its CLIP, as it was named.
        folder: of the person's encoder.
        downloaded: bytes.
        changed: whether another space was in use before.
        set_aside: where that space and its experts lie now, if it was the person's.
        restored: whether the space had been set aside and is back, with its experts.
    """

    space: str | None
    text_encoder: str | None
    folder: str
    downloaded: int = 0
    changed: bool = True
    set_aside: str | None = None
    restored: bool = False

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex space use --json``."""
        return asdict(self)


def get_clip(name: str, folder: Path, confirm: Confirm) -> tuple[ClipFiles, int]:
    """Return the files of a CLIP, downloaded if they are not here and ``confirm`` allows it, and the bytes fetched.

    Args:
        name: of the CLIP, as ``parse_clip_name`` takes it.
        folder: of the person's encoder, checked before anything is fetched.
        confirm: called with what would be downloaded, if anything has to be.

    Raises:
        CheckpointError: the name or the files are wrong, or the folder is no encoder.
        FetchError: the hub cannot be used.
    """
    check_replaceable(folder)
    source = parse_clip_name(name)
    files = find_clip(source, cached_file)
    if files or not source.repository:
        return files or local_clip(name), 0
    download = Download.plan(source)
    confirm(download)
    return download.fetch(), download.size


def use_clip(
    name: str,
    files: ClipFiles,
    folder: Path,
    downloaded: int = 0,
    progress: ProgressCallback = lambda done, total, word: None,
) -> UseAnswer:
    """Make the space of a CLIP and have it used from now on.

    Args:
        name: of the CLIP.
        files: of the CLIP, as ``get_clip`` returns them.
        folder: of the person's encoder; another space in it is moved beside it, with its experts.
        downloaded: bytes.
        progress: called with the number of words that are encoded.

    Raises:
        CheckpointError: the files are no CLIP, or the folder is no encoder or cannot be written.
    """
    folder = folder.absolute()
    check_replaceable(folder)
    with writable(folder), new_folder_beside(folder) as new:
        files.write(new / CLIP_FOLDER)
        # A path would name a place of this machine, and the space has a copy of its own.
        text_encoder = name if files.of_hub else f"{LOCAL_FOLDER}{CLIP_FOLDER}"
        space, labels = make_space(text_encoder, files, new / CLIP_FOLDER, progress)
        space.save(new / SPACE_FILE)
        labels.save(new / LABELS_FILE)
        if (folder / SPACE_FILE).is_file() and Space.load(folder / SPACE_FILE).name == space.name:
            mend(folder, new)
            return UseAnswer(space.name, name, str(folder), downloaded, changed=False)
        set_aside, before = put_aside(folder), aside(folder, space.name)
        if restored := before.is_dir():
            mend(before, new)
        (before if restored else new).rename(folder)
    return UseAnswer(space.name, name, str(folder), downloaded, set_aside=set_aside, restored=restored)


def use_shipped(folder: Path) -> UseAnswer:
    """Have the space that ships used from now on; the person's encoder is moved beside its place.

    Raises:
        CheckpointError: as ``use_clip``.
    """
    folder = folder.absolute()
    check_replaceable(folder)
    return UseAnswer(None, None, str(folder), changed=folder.exists(), set_aside=put_aside(folder))


def check_replaceable(folder: Path) -> None:
    """Raise ``CheckpointError`` if a folder is neither an encoder nor empty."""
    if folder.exists() and not (folder / SPACE_FILE).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder}: expected an encoder (with {SPACE_FILE}) or nothing, found other files; name another folder in $LORADEX_ENCODER"
        )


def put_aside(folder: Path) -> str | None:
    """Move an encoder beside its place, by the name of its space; return where, or None if there was none.

    Raises:
        CheckpointError: another one was put aside by that name, or it cannot be moved.
    """
    if not folder.exists():
        return None
    with writable(folder):
        if not (folder / SPACE_FILE).is_file():
            folder.rmdir()
            return None
        target = aside(folder, Space.load(folder / SPACE_FILE).name)
        if target.exists():
            raise CheckpointError(
                f"{target}: expected room for the encoder in {folder}, found another of the same space; move one of them elsewhere"
            )
        folder.rename(target)
    return str(target)


def mend(folder: Path, new: Path) -> None:
    """Give an encoder the CLIP of a new one of the same space, and its labels if it has none; its own files stay."""
    clip = folder / CLIP_FOLDER
    if clip.exists():
        clip.rename(new / "old")
    (new / CLIP_FOLDER).rename(clip)
    if not (folder / LABELS_FILE).is_file():
        (new / LABELS_FILE).rename(folder / LABELS_FILE)


def aside(folder: Path, space: str) -> Path:
    """Where an encoder lies while another space is in use."""
    return folder.with_name(f"{folder.name}-{space}")


@contextmanager
def new_folder_beside(folder: Path) -> Iterator[Path]:
    """Yield a new folder on the same disk; it is removed if it has not been moved, as are those of killed runs."""
    prefix, suffix = f".{folder.name}-", ".part"
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{escape(prefix)}*{suffix}"):
        with suppress(ZooError):  # another run is still making it
            WriterLock(left).release()
            shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(suffix, prefix, folder.parent, ignore_cleanup_errors=True) as parent, ExitStack() as stack:
        stack.callback(WriterLock(Path(parent)).release)
        new = Path(parent, "encoder")
        new.mkdir()
        yield new


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn errors of the system into a ``CheckpointError`` about the folder."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{folder}: expected a place to write to, found: {error}; name another in $LORADEX_ENCODER"
        ) from None
