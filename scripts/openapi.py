"""Writes docs/openapi.json, the API as programs read it: ``python -m scripts.openapi``."""

import json
from pathlib import Path
from typing import Final

from loradex.app.api.rest import rest_api
from loradex.app.backend import Desk
from loradex.app.search.service import Loradex

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "openapi.json"


def described() -> str:
    """The document; no zoo is opened for it."""
    return json.dumps(rest_api(Desk(Loradex())).openapi(), indent=1) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(described(), "utf-8")
