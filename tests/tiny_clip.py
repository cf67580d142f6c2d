"""A CLIP of two small random towers, saved as open_clip saves its own, and a hub on loopback that has it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import open_clip
import pytest
import torch
from huggingface_hub.utils import close_session
from open_clip.model import CLIP
from safetensors.torch import save_file

from tests.hub import Responder

DIM = 16
MODEL_CONFIG: dict[str, Any] = {
    "embed_dim": DIM,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def save_tiny_clip(folder: Path, seed: int = 0, **model_config: Any) -> Path:
    """Save config and weights into a folder, and return it."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    config = MODEL_CONFIG | model_config
    model = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"], config.get("quick_gelu", False))
    pictures = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": pictures}))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@contextmanager
def add_architecture(folder: Path, name: str = "tiny-clip") -> Iterator[str]:
    """Have open_clip know the architecture of ``MODEL_CONFIG`` by a name, as it knows its own."""
    from open_clip import factory

    path = folder / f"{name}.json"
    path.write_text(json.dumps(MODEL_CONFIG))
    open_clip.add_model_config(path)
    try:
        yield name
    finally:
        factory._MODEL_CONFIG_PATHS.remove(path)
        factory._MODEL_CONFIGS.pop(name)


class ClipHub(ThreadingHTTPServer):
    """Serves a folder as one repository of a hub, and keeps the requests."""

    daemon_threads = True

    def __init__(self, folder: Path, repository: str) -> None:
        super().__init__(("127.0.0.1", 0), ClipHubHandler)
        self.folder, self.repository, self.requests = folder, repository, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class ClipHubHandler(Responder):
    server: ClipHub

    def do_GET(self) -> None:
        path, hub = unquote(urlsplit(self.path).path), self.server
        if hub.repository in path:  # and not what the hub's library asks on its own
            hub.requests.append(f"{self.command} {path}")
        start = f"/{hub.repository}/resolve/main/"
        if path == f"/api/models/{hub.repository}":
            files = [{"rfilename": file.name, "size": file.stat().st_size} for file in sorted(hub.folder.iterdir())]
            body = json.dumps({"id": hub.repository, "sha": COMMIT, "siblings": files}).encode()
            self.respond(200, body, Content_Type="application/json")
        elif path.startswith(start) and (hub.folder / path.removeprefix(start)).is_file():
            name = path.removeprefix(start)
            self.respond(200, (hub.folder / name).read_bytes(), ETag=f'"{name}"', X_Repo_Commit=COMMIT)
        else:
            self.respond(404, b"", X_Error_Code="EntryNotFound")


@contextmanager
def serve_clip(folder: Path, repository: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClipHub]:
    """Serve a folder as a repository; what is fetched goes to ``cache``."""
    hub = ClipHub(folder, repository)
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    constants = huggingface_hub.constants
    # huggingface_hub reads the environment when it is imported
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    close_session()
    try:
        yield hub
    finally:
        close_session()
        hub.shutdown()
        thread.join()
        hub.server_close()
