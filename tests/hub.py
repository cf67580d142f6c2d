"""A hub on loopback for tests: one repository, sent from a CDN after a redirect, and the faults that servers have."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils import close_session
from safetensors.torch import save_file

from loradex.retrieval.lora.layer_names.cloneofsimo import unet_order
from loradex.retrieval.remote import remote

SHA = "0123456789abcdef0123456789abcdef01234567"
PAGE = 3  # entries of a listing


def shapes() -> dict[str, tuple[int, int]]:
    """(out, in) of the 128 attention layers of Stable Diffusion 1."""
    widths = {
        "down_blocks.0": 320,
        "down_blocks.1": 640,
        "down_blocks.2": 1280,
        "mid_block": 1280,
        "up_blocks.1": 1280,
        "up_blocks.2": 640,
        "up_blocks.3": 320,
    }
    made = {}
    for name in unet_order(False):
        out = next(width for block, width in widths.items() if name.startswith(f"unet.{block}"))
        made[name] = out, 768 if name.endswith(("attn2.to_k", "attn2.to_v")) else out
    return made


def save_lora(path: Path, layers: dict[str, tuple[int, int]], rank: int, seed: int, **metadata: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, (out, width) in layers.items():
        tensors[f"{name}.lora.down.weight"] = torch.randn(rank, width, generator=generator)
        tensors[f"{name}.lora.up.weight"] = torch.randn(out, rank, generator=generator)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata)


@dataclass
class Hub:
    """A folder served as one repository; ``cdn`` is where files are sent from, after a redirect."""

    folder: Path
    repository: str
    revisions: tuple[str, ...] = ("main",)  # besides the commit
    commit: str = SHA  # that it says it is at
    hub: str = ""
    cdn: str = ""
    entries: list[dict[str, Any]] = field(default_factory=list)  # listed besides what is there
    sizes: dict[str, int] = field(default_factory=dict)  # that are listed otherwise than they are
    sha256: dict[str, str] = field(default_factory=dict)  # that are listed
    fault: Callable[[str, "Handler"], bool] | None = None  # answers a request in another way
    asked: list[tuple[str, str]] = field(default_factory=list)  # of the CDN: path, range
    tokens: set[str] = field(default_factory=set)  # that the CDN saw
    sent: int = 0  # bytes of files

    def listing(self, folder: str) -> list[dict[str, Any]]:
        return [self.entry(path) for path in sorted((self.folder / folder).rglob("*"))] + [
            entry for entry in self.entries if entry["path"].startswith(folder)
        ]

    def entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": SHA}
        size = self.sizes.get(name, path.stat().st_size)
        told = {"lfs": {"oid": self.sha256[name], "size": size, "pointerSize": 130}} if name in self.sha256 else {}
        return {"type": "file", "path": name, "oid": SHA, "size": size, **told}


class Handler(BaseHTTPRequestHandler):
    """As much of the hub's API as fetching needs."""

    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it waits 40 ms between a header and its body

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path.startswith("/cdn/"):
            self.hub.asked.append((path, self.headers.get("Range", "")))
            self.hub.tokens |= {self.headers["Authorization"]} if "Authorization" in self.headers else set()
            if not (self.hub.fault and self.hub.fault(path, self)):
                self.send(self.hub.folder / path.removeprefix("/cdn/"))
        elif path.startswith(start := f"/{self.hub.repository}/resolve/{SHA}/"):
            name = path.removeprefix(start)
            size = str((self.hub.folder / name).stat().st_size)
            self.answer(
                302,
                b"",
                Location=f"{self.hub.cdn}/cdn/{name}",
                ETag=f'"{name}"',
                X_Repo_Commit=SHA,
                X_Linked_Size=size,
                X_Linked_ETag='"e"',
            )
        elif path.startswith(start := f"/api/models/{self.hub.repository}/tree/{SHA}"):
            self.list(path.removeprefix(start).removeprefix("/"), parse_qs(url.query))
        elif path.startswith(start := f"/api/models/{self.hub.repository}"):
            revision = path.removeprefix(start).removeprefix("/revision/") or "main"
            if revision in (SHA, *self.hub.revisions):
                self.answer(
                    200,
                    json.dumps({"id": self.hub.repository, "sha": self.hub.commit, "siblings": []}).encode(),
                    Content_Type="application/json",
                )
            else:
                self.answer(404, b"", X_Error_Code="RevisionNotFound")
        else:
            self.answer(404, b"", X_Error_Code="RepoNotFound" if path.startswith("/api/") else "EntryNotFound")

    def list(self, folder: str, query: dict[str, list[str]]) -> None:
        entries, start = self.hub.listing(folder), int(query.get("cursor", ["0"])[0])
        if not entries:
            return self.answer(404, b"", X_Error_Code="EntryNotFound")
        more = (
            f'<{self.hub.hub}{urlsplit(self.path).path}?recursive=true&cursor={start + PAGE}>; rel="next"'
            if start + PAGE < len(entries)
            else ""
        )
        return self.answer(
            200,
            json.dumps(entries[start : start + PAGE]).encode(),
            Content_Type="application/json",
            **({"Link": more} if more else {}),
        )

    def part(self) -> tuple[int, int]:
        """The range that is asked for: start, end."""
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), int(last) + 1

    def send(self, path: Path) -> None:
        raw, asked = path.read_bytes(), "Range" in self.headers
        start, end = self.part() if asked else (0, len(raw))
        self.hub.sent += end - start
        self.answer(
            206 if asked else 200,
            raw[start:end],
            ETag='"e"',
            **({"Content-Range": f"bytes {start}-{end - 1}/{len(raw)}"} if asked else {}),
        )


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that hang up."""

    def handle_error(self, *_: object) -> None:
        pass


def cut(times: int, keep: int) -> Callable[[str, Handler], bool]:
    """A fault: the connection is cut after ``keep`` bytes of an answer, so many times."""
    left = [times]

    def fault(path: str, handler: Handler) -> bool:
        start, end = handler.part()
        if end - start <= 1000 or not left[0]:
            return False
        left[0] -= 1
        raw = (handler.hub.folder / path.removeprefix("/cdn/")).read_bytes()
        handler.send_response(206)
        handler.send_header("Content-Length", str(end - start))
        handler.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(raw)}")
        handler.end_headers()
        handler.wfile.write(raw[start : start + keep])
        handler.close_connection = True
        return True

    return fault


def without_ranges(path: str, handler: Handler) -> bool:
    handler.answer(200, (handler.hub.folder / path.removeprefix("/cdn/")).read_bytes())
    return True


def another_range(path: str, handler: Handler) -> bool:
    start, end = handler.part()
    handler.answer(206, bytes(end - start), Content_Range=f"bytes {start + 1}-{end}/{10**9}")
    return True


def more_than_asked(path: str, handler: Handler) -> bool:
    start, end = handler.part()
    size = (handler.hub.folder / path.removeprefix("/cdn/")).stat().st_size
    handler.answer(206, bytes(end - start + 1), Content_Range=f"bytes {start}-{end - 1}/{size}")
    return True


def compressed(path: str, handler: Handler) -> bool:
    start, end = handler.part()
    size = (handler.hub.folder / path.removeprefix("/cdn/")).stat().st_size
    handler.answer(206, bytes(end - start), Content_Range=f"bytes {start}-{end - 1}/{size}", Content_Encoding="gzip")
    return True


@contextmanager
def serve(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub on two ports of loopback, one of them its CDN."""
    handler = type("Bound", (Handler,), {"hub": hub})
    servers = [QuietServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.hub, hub.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}) for server in servers]
    for thread in threads:
        thread.start()
    monkeypatch.setattr(
        huggingface_hub.constants, "HF_HUB_OFFLINE", False
    )  # the guard of conftest still keeps tests on this machine
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(
        huggingface_hub.constants, "ENDPOINT", hub.hub
    )  # of HF_ENDPOINT, which is read when it is first imported
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.hub + "/{repo_id}/resolve/{revision}/{filename}"
    )
    close_session()
    yield hub
    close_session()
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()
