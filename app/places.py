"""Where things lie: the miniature that ships, and a person's own zoo."""

import os
from pathlib import Path
from typing import Final

MINIATURE: Final = Path(__file__).parent / "miniature"
SHIPPED_ZOO: Final = MINIATURE / "zoo"
SHIPPED_NAME: Final = "miniature"  # what --zoo takes for the shipped zoo


def encoder_folder() -> Path:
    """``$LORADEX_ENCODER``, a folder with a space and experts, else the one that ships."""
    return Path(os.environ.get("LORADEX_ENCODER") or MINIATURE / "encoder")


def own_zoo() -> Path:
    """The zoo that ``loradex index`` fills when none is named."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "loradex" / "zoo"


def zoo_to_write(named: str | None) -> Path:
    """The named zoo, else ``$LORADEX_ZOO``, else the person's own."""
    chosen = named or os.environ.get("LORADEX_ZOO")
    return Path(chosen) if chosen else own_zoo()


def zoo_to_read(named: str | None) -> Path:
    """The named zoo, else ``$LORADEX_ZOO``, else the person's own where there is one, else the one that ships."""
    if (named or os.environ.get("LORADEX_ZOO")) == SHIPPED_NAME:
        return SHIPPED_ZOO
    chosen = zoo_to_write(named)
    return SHIPPED_ZOO if not (named or os.environ.get("LORADEX_ZOO")) and not chosen.exists() else chosen
