"""Where things lie: the miniature that ships, and a person's own zoo."""

import json
import os
from pathlib import Path
from typing import Any, Final

from loradex.index.milvus.address import SCHEME, folder_of

MINIATURE: Final = Path(__file__).resolve().parent / "miniature"  # resolved, since a checkout reaches it by a link
TREES: Final = MINIATURE / "trees"
UPSAMPLER: Final = MINIATURE / "upsampler"
CLIP: Final = MINIATURE / "encoder" / "clip"
SHIPPED_ZOO: Final = MINIATURE / "zoo"
SHIPPED_NAME: Final = "miniature"  # what --zoo takes for the shipped zoo


def read_json(path: Path) -> Any:
    """A JSON file of the miniature."""
    return json.loads(path.read_text("utf-8"))


def encoder_folders(zoo: Path | None = None) -> list[Path]:
    """The folder whose space is used, then others whose experts are, where they share it.

    That is ``$LORADEX_ENCODER`` or the person's own where there is one, then the one that ships; for the shipped zoo the other way round.
    """
    own, shipped = own_encoder(), MINIATURE / "encoder"
    there = [own] if os.environ.get("LORADEX_ENCODER") or (own / "space.safetensors").exists() else []
    return [shipped, *there] if zoo == SHIPPED_ZOO else [*there, shipped]


def own_encoder() -> Path:
    """``$LORADEX_ENCODER``, else the folder that ``loradex train`` fills when none is named."""
    named = os.environ.get("LORADEX_ENCODER")
    return Path(named) if named else own_data() / "encoder"


def own_zoo() -> Path:
    """The zoo that ``loradex index`` fills when none is named."""
    return own_data() / "zoo"


def own_data() -> Path:
    """Where a person's own zoo and experts lie."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "loradex"


def own_cache() -> Path:
    """Where what can be made again lies."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "loradex"


def zoo_to_write(named: str | None) -> Path:
    """The folder of the named zoo, else of ``$LORADEX_ZOO``, else the person's own.

    Raises:
        BadQuery: an address of Milvus cannot be read.
        ZooError: its folder on this machine cannot be made.
    """
    chosen = named or os.environ.get("LORADEX_ZOO")
    return place_of(chosen, make=True) if chosen else own_zoo()


def zoo_to_read(named: str | None) -> Path:
    """The folder of the named zoo, else of ``$LORADEX_ZOO``, else the person's own where there is one, else the one that ships.

    Raises:
        BadQuery, ZooError: as ``zoo_to_write``.
    """
    chosen = named or os.environ.get("LORADEX_ZOO")
    if chosen:
        return SHIPPED_ZOO if chosen == SHIPPED_NAME else place_of(chosen)
    return own_zoo() if own_zoo().exists() else SHIPPED_ZOO


def place_of(said: str, *, make: bool = False) -> Path:
    """A folder as it is named, or of a zoo in Milvus."""
    return folder_of(said, own_data() / "milvus", make=make) if said.startswith(SCHEME) else Path(said)
