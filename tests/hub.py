"""A hub on loopback for tests: one repository, whose files come from a CDN after a redirect, and faults of servers."""

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

from loradex.retrieval.lora.layer_names.counted_modules import unet_modules
from loradex.retrieval.remote import ranges

SHA = "0123456789abcdef0123456789abcdef01234567"
PAGE_SIZE = 3  # entries of a page of a listing


def sd1_shapes() -> dict[str, tuple[int, int]]:
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
    shapes = {}
    for name in (module.path for module in unet_modules(("attn1", "attn2"))):
        out = next(width for block, width in widths.items() if name.startswith(f"unet.{block}"))
        shapes[name] = out, 768 if name.endswith(("attn2.to_k", "attn2.to_v")) else out
    return shapes


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
    """A folder that is served as one repository.

    Attributes:
        revisions: names of the commit.
        stated_commit: the commit that the hub states.
        url: of the hub.
        cdn_url: of the CDN, from which files are sent.
        extra_entries: of the listing, besides the files in the folder.
        listed_sizes: by file, if the listing states another size than the true one.
        listed_sha256: by file.
        fault: answers a request of the CDN wrongly, and returns True, or returns False.
        cdn_requests: path and range of each request.
        cdn_tokens: tokens that were sent to the CDN.
        sent: bytes of files.
    """

    folder: Path
    repository: str
    revisions: tuple[str, ...] = ("main",)
    stated_commit: str = SHA
    url: str = ""
    cdn_url: str = ""
    extra_entries: list[dict[str, Any]] = field(default_factory=list)
    listed_sizes: dict[str, int] = field(default_factory=dict)
    listed_sha256: dict[str, str] = field(default_factory=dict)
    fault: Callable[[str, "Handler"], bool] | None = None
    cdn_requests: list[tuple[str, str]] = field(default_factory=list)
    cdn_tokens: set[str] = field(default_factory=set)
    sent: int = 0

    def listing(self, folder: str) -> list[dict[str, Any]]:
        return [self.entry(path) for path in sorted((self.folder / folder).rglob("*"))] + [
            entry for entry in self.extra_entries if entry["path"].startswith(folder)
        ]

    def entry(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": SHA}
        size = self.listed_sizes.get(name, path.stat().st_size)
        sha256 = self.listed_sha256.get(name)
        lfs = {"lfs": {"oid": sha256, "size": size, "pointerSize": 130}} if sha256 else {}
        return {"type": "file", "path": name, "oid": SHA, "size": size, **lfs}


class Responder(BaseHTTPRequestHandler):
    """Answers HEAD as GET without a body, and logs nothing."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which delays a body by 40 ms after its header

    def log_message(self, *_: object) -> None:
        pass

    def respond(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        raise NotImplementedError


class Handler(Responder):
    """As much of the hub's API as fetching needs."""

    hub: Hub

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        if path.startswith("/cdn/"):
            self.hub.cdn_requests.append((path, self.headers.get("Range", "")))
            self.hub.cdn_tokens |= {self.headers["Authorization"]} if "Authorization" in self.headers else set()
            if not (self.hub.fault and self.hub.fault(path, self)):
                self.send_file(self.hub.folder / path.removeprefix("/cdn/"))
        elif path.startswith(start := f"/{self.hub.repository}/resolve/{SHA}/"):
            name = path.removeprefix(start)
            size = str((self.hub.folder / name).stat().st_size)
            self.respond(
                302,
                b"",
                Location=f"{self.hub.cdn_url}/cdn/{name}",
                ETag=f'"{name}"',
                X_Repo_Commit=SHA,
                X_Linked_Size=size,
                X_Linked_ETag='"e"',
            )
        elif path.startswith(start := f"/api/models/{self.hub.repository}/tree/{SHA}"):
            self.send_tree(path.removeprefix(start).removeprefix("/"), parse_qs(url.query))
        elif path.startswith(start := f"/api/models/{self.hub.repository}"):
            revision = path.removeprefix(start).removeprefix("/revision/") or "main"
            if revision in (SHA, *self.hub.revisions):
                self.respond(
                    200,
                    json.dumps({"id": self.hub.repository, "sha": self.hub.stated_commit, "siblings": []}).encode(),
                    Content_Type="application/json",
                )
            else:
                self.respond(404, b"", X_Error_Code="RevisionNotFound")
        else:
            self.respond(404, b"", X_Error_Code="RepoNotFound" if path.startswith("/api/") else "EntryNotFound")

    def send_tree(self, folder: str, query: dict[str, list[str]]) -> None:
        entries, start = self.hub.listing(folder), int(query.get("cursor", ["0"])[0])
        if not entries:
            return self.respond(404, b"", X_Error_Code="EntryNotFound")
        next_page = (
            f'<{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + PAGE_SIZE}>; rel="next"'
            if start + PAGE_SIZE < len(entries)
            else ""
        )
        return self.respond(
            200,
            json.dumps(entries[start : start + PAGE_SIZE]).encode(),
            Content_Type="application/json",
            **({"Link": next_page} if next_page else {}),
        )

    def requested_range(self) -> tuple[int, int]:
        """Start and end of the requested bytes."""
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        return int(first), int(last) + 1

    def send_file(self, path: Path) -> None:
        raw, is_range = path.read_bytes(), "Range" in self.headers
        start, end = self.requested_range() if is_range else (0, len(raw))
        self.hub.sent += end - start
        self.respond(
            206 if is_range else 200,
            raw[start:end],
            ETag='"e"',
            **({"Content-Range": f"bytes {start}-{end - 1}/{len(raw)}"} if is_range else {}),
        )


class QuietServer(ThreadingHTTPServer):
    """Reports no errors of clients that hang up."""

    def handle_error(self, *_: object) -> None:
        pass


def cut_connection(times: int, keep: int) -> Callable[[str, Handler], bool]:
    """A fault: the connection is cut after ``keep`` bytes of a response, ``times`` times."""
    remaining = [times]

    def fault(path: str, handler: Handler) -> bool:
        start, end = handler.requested_range()
        if end - start <= 1000 or not remaining[0]:
            return False
        remaining[0] -= 1
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
    handler.respond(200, (handler.hub.folder / path.removeprefix("/cdn/")).read_bytes())
    return True


def wrong_range(path: str, handler: Handler) -> bool:
    start, end = handler.requested_range()
    handler.respond(206, bytes(end - start), Content_Range=f"bytes {start + 1}-{end}/{10**9}")
    return True


def too_many_bytes(path: str, handler: Handler) -> bool:
    start, end = handler.requested_range()
    size = (handler.hub.folder / path.removeprefix("/cdn/")).stat().st_size
    handler.respond(206, bytes(end - start + 1), Content_Range=f"bytes {start}-{end - 1}/{size}")
    return True


def compressed(path: str, handler: Handler) -> bool:
    start, end = handler.requested_range()
    size = (handler.hub.folder / path.removeprefix("/cdn/")).stat().st_size
    handler.respond(206, bytes(end - start), Content_Range=f"bytes {start}-{end - 1}/{size}", Content_Encoding="gzip")
    return True


@contextmanager
def serve(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Serve the hub and its CDN on two ports of loopback."""
    handler = type("Bound", (Handler,), {"hub": hub})
    servers = [QuietServer(("127.0.0.1", 0), handler) for _ in range(2)]
    hub.url, hub.cdn_url = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}) for server in servers]
    for thread in threads:
        thread.start()
    # the guard of conftest still keeps tests on this machine
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(ranges, "PAUSE", 0.0)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # huggingface_hub reads HF_ENDPOINT when it is imported
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    close_session()
    yield hub
    close_session()
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()
