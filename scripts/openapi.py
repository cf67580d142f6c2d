"""``python -m scripts.openapi``: writes docs/openapi.json, the OpenAPI document of the API."""

import json
from pathlib import Path
from typing import Final

from loradex.app.api.rest import rest_api
from loradex.app.backend import Backend
from loradex.app.search.service import Loradex

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "openapi.json"


def render_openapi() -> str:
    """The OpenAPI document as JSON text; opens no zoo."""
    return json.dumps(rest_api(Backend(Loradex())).openapi(), indent=1) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render_openapi(), "utf-8")
