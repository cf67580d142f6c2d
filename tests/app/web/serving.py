"""A real server in a process of its own, far from everyone's files, and what it holds."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from loradex.app.paths import MINIATURE
from tests.app.web.asking import PREDICT, UPLOAD

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[0]
REST: list[Any] = [[], [], [], "", "", "any way"]  # what a search takes behind its text, models and picture


@dataclass
class Server:
    """A server, where it answers, and its folder for temporary files."""

    process: subprocess.Popen[str]
    address: str
    zoo: Path
    temporary: Path
    log: Path
    client: httpx.Client

    def run(self, name: str, *data: Any, session: str = "someone", event: Any = None) -> httpx.Response:
        """Call a function of the page, by its name."""
        body = {"fn_index": self.function(name)["id"], "data": data, "session_hash": session, "event_data": event}
        return self.client.post(PREDICT, json=body)

    def functions(self) -> list[dict[str, Any]]:
        """All functions of the page."""
        return self.client.get("/config").json()["dependencies"]

    def function(self, name: str) -> dict[str, Any]:
        """The first function that takes so: ``search``, ``label`` or ``index``."""
        labels = {
            "search": "What should the model draw?",
            "label": "LoRA files (.safetensors)",
            "index": "Folders on the server's machine, one a line",
        }
        config = self.client.get("/config").json()
        (asked,) = (part["id"] for part in config["components"] if part["props"].get("label") == labels[name])
        return next(each for each in config["dependencies"] if each["inputs"][:1] == [asked])

    def send(self, *files: tuple[str, bytes]) -> list[dict[str, Any]]:
        """Upload files; how the page names them then."""
        answer = self.client.post(UPLOAD, files=[("files", file) for file in files])
        return [as_file(path) for path in answer.raise_for_status().json()]

    def files(self) -> list[str]:
        """What lies in its folder for temporary files."""
        return sorted(
            str(path.relative_to(self.temporary)) for path in self.temporary.rglob("loradex-*/**/*") if path.is_file()
        )

    def holds(self) -> tuple[int, int]:
        """Its resident memory in MiB, and how many descriptors it has open."""
        proc = Path(f"/proc/{self.process.pid}")
        (resident,) = (
            int(line.split()[1]) for line in (proc / "status").read_text().splitlines() if line.startswith("VmRSS")
        )
        return resident // 1024, len(list((proc / "fd").iterdir()))


def as_file(path: object, **more: Any) -> dict[str, Any]:
    """A file as the page sends its path to functions."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}, **more}


def tells_nothing(answer: httpx.Response) -> bool:
    """Whether it is bounded, and has nothing of the server's insides."""
    inside = ("Traceback", 'File "', ".py", "site-packages", "loradex-")
    return len(answer.content) < 200_000 and not any(word in answer.text for word in inside)


@contextmanager
def serving(folder: Path, *options: str, zoo: str = "miniature") -> Iterator[Server]:
    """Where it answers, while it does."""
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
        sys.executable,
        "-c",
        "from loradex.app.commands.main import main; main()",
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
            told = json.loads(line)
            with httpx.Client(base_url=told["page"], timeout=60, limits=httpx.Limits(max_connections=None)) as client:
                yield Server(process, told["page"], Path(told["zoo"]), temporary, log, client)
            process.send_signal(signal.SIGINT)
            process.wait(30)
        finally:
            process.kill()
