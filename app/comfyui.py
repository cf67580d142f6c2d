"""The node pack for ComfyUI: linked or copied into the ``custom_nodes`` of one."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loradex.index.shell import quote_path
from loradex.retrieval.errors import LoradexError

PACK: Final = Path(__file__).resolve().parents[1] / "integrations" / "comfyui"  # in a checkout, and installed
NAME: Final = "loradex"  # of the pack's folder in custom_nodes
FIRST_WORDS: Final = '"""Loradex in ComfyUI'  # of the pack's first file, by which a folder of ours is known
MAX_FIRST_BYTES: Final = 200
CODE: Final = ("main.py", "nodes.py", "folder_paths.py")  # in a ComfyUI that was cloned or unpacked
DATA: Final = ("models", "user")  # beside custom_nodes in the folder of the desktop app, and of --base-directory
IGNORED: Final = shutil.ignore_patterns("__pycache__")
NEW: Final = "loradex-new.disabled"  # ComfyUI leaves out folders that end so


class ComfyUIError(LoradexError):
    """There is no ComfyUI, or something else is in the pack's place."""


@dataclass(frozen=True, slots=True)
class InstalledPack:
    """The pack in a ComfyUI.

    Attributes:
        folder: of the pack in custom_nodes.
        linked: whether it is a link to the files of this installation.
        updated: whether it was there before.
        next: what to do, in order.
    """

    folder: Path
    linked: bool
    updated: bool
    next: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """The JSON of ``loradex comfyui install``."""
        return {
            "folder": str(self.folder),
            "linked": self.linked,
            "updated": self.updated,
            "next": list(self.next),
        }


def install_pack(comfyui: Path, copy: bool = False) -> InstalledPack:
    """Link the pack into a ComfyUI, or copy it where links cannot be made; one that is there is replaced.

    Args:
        comfyui: the folder of ComfyUI.
        copy: whether to copy in any case.

    Raises:
        ComfyUIError: there is no ComfyUI, or a folder of somebody else in the pack's place.
        OSError: the folder cannot be written.
    """
    home = find_comfyui(comfyui)
    folder = home / "custom_nodes" / NAME
    was_there = os.path.lexists(folder)
    if was_there and not is_ours(folder):
        raise ComfyUIError(
            f"{folder}: expected the node pack of Loradex or nothing, found something else; move it away and try again"
        )
    folder.parent.mkdir(exist_ok=True)
    linked = not copy and link_pack(folder)
    if not linked:
        copy_pack(folder)
    steps = (
        f"loradex index {quote_path(home / 'models' / 'loras')}",
        "loradex serve --api",
        "start ComfyUI again, and open the tab Loradex at its left side",
    )
    return InstalledPack(folder, linked, was_there, steps)


def find_comfyui(path: Path) -> Path:
    """The folder of a ComfyUI: the one that is named, or ``ComfyUI`` in it, as in the portable version for Windows.

    Raises:
        ComfyUIError: there is none.
    """
    path = path.expanduser().absolute()
    for folder in (path, path / "ComfyUI", *([path.parent] if path.name == "custom_nodes" else [])):
        has_code = all((folder / name).is_file() for name in CODE)
        if has_code or all((folder / name).is_dir() for name in ("custom_nodes", *DATA)):
            return folder
    raise ComfyUIError(
        f"{path}: expected the folder of ComfyUI, with {', '.join(CODE)} and custom_nodes, found none; name that folder"
    )


def is_ours(folder: Path) -> bool:
    """Whether a folder or link in custom_nodes is the pack, or a link to nowhere that an older one left."""
    if folder.is_symlink() and not folder.exists():
        return True
    try:
        with (folder / "__init__.py").open("rb") as file:
            return file.read(MAX_FIRST_BYTES).startswith(FIRST_WORDS.encode())
    except OSError:
        return False


def link_pack(folder: Path) -> bool:
    """Make the folder a link to the pack; return whether this system lets us."""
    new = folder.with_name(NEW)
    remove(new)
    try:
        new.symlink_to(PACK, target_is_directory=True)
    except OSError:  # Windows makes links in developer mode only, and some drives cannot hold them
        return False
    replace(folder, new)
    return True


def copy_pack(folder: Path) -> None:
    """Make the folder a copy of the pack."""
    new = folder.with_name(NEW)
    remove(new)
    shutil.copytree(PACK, new, ignore=IGNORED)
    replace(folder, new)


def replace(folder: Path, new: Path) -> None:
    """Put a link or folder in the place of another."""
    remove(folder)
    new.rename(folder)


def remove(folder: Path) -> None:
    """Remove a link, or a folder with all that is in it, if there is one."""
    if folder.is_symlink():
        folder.unlink()
        return
    with suppress(FileNotFoundError):
        shutil.rmtree(folder)
