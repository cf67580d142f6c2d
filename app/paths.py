"""Paths of the shipped miniature and of the user's own data."""

import json
import os
from pathlib import Path
from typing import Any, Final

from loradex.index.milvus.address import SCHEME, folder_of_address

MINIATURE: Final = Path(__file__).resolve().parent / "miniature"  # resolved, as src/loradex/app is a link in a checkout
TREES: Final = MINIATURE / "trees"
UPSAMPLER: Final = MINIATURE / "upsampler"
CLIP: Final = MINIATURE / "encoder" / "clip"
SHIPPED_ZOO: Final = MINIATURE / "zoo"
SHIPPED_NAME: Final = "miniature"  # value of --zoo that means the shipped zoo


def read_json(path: Path) -> Any:
    """Read a JSON file of the miniature."""
    return json.loads(path.read_text("utf-8"))


def encoder_folders(zoo: Path | None = None) -> list[Path]:
    """Return the folder of the encoder, then further folders whose experts are used if they share its space.

    The user's encoder (``$LORADEX_ENCODER``, or the trained one if there is one) comes before the shipped one; for the
    shipped zoo it comes after.
    """
    user, shipped = user_encoder(), MINIATURE / "encoder"
    trained = [user] if os.environ.get("LORADEX_ENCODER") or (user / "space.safetensors").exists() else []
    return [shipped, *trained] if zoo == SHIPPED_ZOO else [*trained, shipped]


def folders_with_experts(kind: str = "experts") -> list[Path]:
    """Return the folders of ``encoder_folders`` whose first has experts, which read files without any zoo.

    A user's encoder in a space that no expert was trained for reads nothing; the shipped one still does.

    Args:
        kind: the folder of the experts in an encoder: ``experts`` or ``categories``.
    """
    folders = encoder_folders()
    return next(
        (folders[start:] for start in range(len(folders)) if any((folders[start] / kind).glob("*.safetensors"))),
        folders,
    )


def user_encoder() -> Path:
    """Return ``$LORADEX_ENCODER``, else the default output folder of ``loradex train``."""
    named = os.environ.get("LORADEX_ENCODER")
    return Path(named) if named else user_data_dir() / "encoder"


def user_zoo() -> Path:
    """Return the default output folder of ``loradex index``."""
    return user_data_dir() / "zoo"


def user_data_dir() -> Path:
    """Return the folder of the user's zoo and encoder."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "loradex"


def user_cache_dir() -> Path:
    """Return the folder of files that can be computed again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "loradex"


def zoo_to_write(named: str | None) -> Path:
    """Return the folder of the named zoo, else of ``$LORADEX_ZOO``, else of the user's zoo.

    Raises:
        BadQuery: an address of Milvus cannot be parsed.
        ZooError: its folder on this machine cannot be created.
    """
    name = named or os.environ.get("LORADEX_ZOO")
    return resolve_zoo(name, make=True) if name else user_zoo()


def zoo_to_read(named: str | None) -> Path:
    """Return the folder of the named zoo, else of ``$LORADEX_ZOO``, else of the user's zoo if it exists, else shipped.

    Raises:
        BadQuery, ZooError: as ``zoo_to_write``.
    """
    name = named or os.environ.get("LORADEX_ZOO")
    if name:
        return SHIPPED_ZOO if name == SHIPPED_NAME else resolve_zoo(name)
    return user_zoo() if user_zoo().exists() else SHIPPED_ZOO


def resolve_zoo(name: str, *, make: bool = False) -> Path:
    """Return the folder of a zoo named by a path or by an address in Milvus; ``make`` creates that of an address."""
    return folder_of_address(name, user_data_dir() / "milvus", make=make) if name.startswith(SCHEME) else Path(name)
