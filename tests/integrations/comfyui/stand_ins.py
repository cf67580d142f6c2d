"""Stand-ins for ComfyUI's modules ``folder_paths`` and ``server``, and for aiohttp, which ComfyUI brings along.

They have what the node pack uses and no more, so that its tests run without ComfyUI. They say nothing about ComfyUI
itself: whether it loads the pack and shows the tab is tried by hand, with it.
"""

import importlib.util
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from loradex.app.comfyui import PACK


@dataclass
class Request:
    """As aiohttp gives it to a route."""

    query: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    path: str = "/loradex/test"


@dataclass
class Response:
    """As a route returns it to aiohttp."""

    body: bytes = b""
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200

    def document(self) -> dict[str, Any]:
        return json.loads(self.body)


class Routes:
    """The table of routes of ComfyUI's server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {}

    def get(self, path: str) -> Callable[..., Any]:
        def add(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
            self.handlers[path] = handler
            return handler

        return add


@dataclass
class ComfyUI:
    """A ComfyUI with folders of models, without a canvas."""

    folders: dict[str, list[Path]]
    user: Path
    routes: Routes = field(default_factory=Routes)

    def names(self, folder: str) -> list[str]:
        found = {str(path.relative_to(root)) for root in self.folders[folder] for path in root.rglob("*.safetensors")}
        return sorted(found)

    def full_path(self, folder: str, name: str) -> str | None:
        return next((str(root / name) for root in self.folders.get(folder, []) if (root / name).is_file()), None)

    def set_address(self, address: str, user: str = "default") -> None:
        (self.user / user).mkdir(parents=True, exist_ok=True)
        (self.user / user / "comfy.settings.json").write_text(json.dumps({"Loradex.Server.Address": address}))

    def load_pack(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        """Load the pack as ComfyUI does: from its folder, under a name that is none of Python's."""
        paths, server, aiohttp = ModuleType("folder_paths"), ModuleType("server"), ModuleType("aiohttp")
        paths.get_filename_list = self.names  # type: ignore[attr-defined]
        paths.get_full_path = self.full_path  # type: ignore[attr-defined]
        paths.get_user_directory = lambda: str(self.user)  # type: ignore[attr-defined]
        instance = type("Server", (), {"routes": self.routes})
        server.PromptServer = type("PromptServer", (), {"instance": instance})  # type: ignore[attr-defined]
        web = type(
            "Web",
            (),
            {
                "Request": Request,
                "Response": Response,
                "json_response": lambda document, status=200: Response(
                    json.dumps(document).encode(), "application/json", {}, status
                ),
            },
        )
        aiohttp.web = web  # type: ignore[attr-defined]
        for module in (paths, server, aiohttp):
            monkeypatch.setitem(sys.modules, module.__name__, module)
        name = "/some/where/custom_nodes/loradex"
        for known in [known for known in sys.modules if known.startswith(name)]:
            monkeypatch.delitem(sys.modules, known)
        spec = importlib.util.spec_from_file_location(name, PACK / "__init__.py")
        assert spec is not None and spec.loader is not None
        pack = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, pack)
        spec.loader.exec_module(pack)
        return pack
