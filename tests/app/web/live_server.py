"""A real server in its own process, with temporary folders in place of the user's, and calls of its page."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loradex.app.paths import MINIATURE
from tests.app.web.asgi_client import PREDICT, UPLOAD
from tests.few_words import LORADEX

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
NO_FILTERS: list[Any] = [[], [], [], "", "", []]  # the inputs of a search after text, models and image


@dataclass
class Server:
    """A server, its address, and its folder for temporary files."""

    process: subprocess.Popen[str]
    address: str
    zoo: Path
    temporary: Path
    log: Path
    client: httpx.Client

    def call(self, name: str, *data: Any, session: str = "someone", event: Any = None) -> httpx.Response:
        """Call a function of the page by its name in ``function``."""
        body = {"fn_index": self.function(name)["id"], "data": data, "session_hash": session, "event_data": event}
        return self.client.post(PREDICT, json=body)

    def functions(self) -> list[dict[str, Any]]:
        """All functions of the page."""
        return self.client.get("/config").json()["dependencies"]

    def function(self, name: str) -> dict[str, Any]:
        """The function of a tab: ``search``, ``label`` or ``index``; the first that takes the tab's first input."""
        labels = {
            "search": "What should the model draw?",
            "label": "LoRA files (.safetensors)",
            "index": "Folders on the server's machine, one per line",
        }
        config = self.client.get("/config").json()
        (input_id,) = (
            component["id"] for component in config["components"] if component["props"].get("label") == labels[name]
        )
        return next(function for function in config["dependencies"] if function["inputs"][:1] == [input_id])

    def upload(self, *files: tuple[str, bytes]) -> list[dict[str, Any]]:
        """Upload files; returns them as the page sends them to functions."""
        response = self.client.post(UPLOAD, files=[("files", file) for file in files])
        return [as_file(path) for path in response.raise_for_status().json()]

    def stored_files(self) -> list[str]:
        """The files in its folder for temporary files."""
        return sorted(
            str(path.relative_to(self.temporary)) for path in self.temporary.rglob("loradex-*/**/*") if path.is_file()
        )

    def resources(self) -> tuple[int, int]:
        """Its resident memory in MiB, and its number of open file descriptors."""
        proc = Path(f"/proc/{self.process.pid}")
        (resident,) = (
            int(line.split()[1]) for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS")
        )
        return resident // 1024, len(list((proc / "fd").iterdir()))


def as_file(path: object, **more: Any) -> dict[str, Any]:
    """A file as the page sends it to functions: by its path."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def hides_internals(response: httpx.Response) -> bool:
    """Whether a response is short, and shows nothing of the server's code and folders."""
    internals = ("Traceback", 'File "', ".py", "site-packages", "loradex-")
    return len(response.content) < 200_000 and not any(word in response.text for word in internals)


@contextmanager
def serving(folder: Path, *options: str, zoo: str = "miniature") -> Iterator[Server]:
    """Run a server until the block ends."""
    (temporary := folder / "tmp").mkdir()
    homes = {
        name: str(folder)
        for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "HF_HOME")
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LORADEX_")}
    environment = (
        inherited
        | homes
        | {"TMPDIR": str(temporary), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    )
    command = [
        *LORADEX,
        "serve",
        "--port",
        "0",
        "--zoo",
        zoo,
        "--json",
        *options,
    ]
    log = folder / "log"
    with (
        log.open("w") as opened,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=opened, text=True, env=environment, cwd=folder
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            ready = json.loads(line)
            with httpx.Client(base_url=ready["page"], timeout=60, limits=httpx.Limits(max_connections=None)) as client:
                yield Server(process, ready["page"], Path(ready["zoo"]), temporary, log, client)
            process.send_signal(signal.SIGINT)
            process.wait(30)
        finally:
            process.kill()
