"""The Containerfile and the compose file of docs/server, and what finds mistakes in them."""

import base64
import importlib.util
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from scripts.check_container import FILE, ROOT, parse, problems, run_lines, stages

SERVER = FILE.parent
IMAGE = 'FROM a:1\nUSER 1000\nHEALTHCHECK NONE\nCMD ["a"]\n'
LOGIN = "name:long pass:word"


def test_the_containerfile_has_no_problem() -> None:
    """By our rules; its image runs with the login, from the folder that compose mounts read-only."""
    assert problems(FILE.read_text("utf-8"), ROOT) == []
    final = {instruction.name: instruction.value for instruction in stages(parse(FILE.read_text("utf-8")))[-1]}
    assert "--login" in final["CMD"] and "--open" not in final["CMD"] and "/loras" in final["CMD"]


def test_instructions_are_joined_and_numbered() -> None:
    """Comments and empty lines are left out, also within an instruction; flags are taken apart."""
    run, copy = parse("# one\nRUN a \\\n  # two\n\n  && b\nCOPY --from=x --chown=1:1 /y /z\n")
    assert (run.line, run.name, run.value) == (2, "RUN", "a && b")
    assert (copy.line, copy.flags, copy.value) == (6, {"from": "x", "chown": "1:1"}, "/y /z")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "expected FROM"),
        (IMAGE.replace("a:1", "a"), "found a; write image:1.2"),
        (IMAGE.replace("a:1", "a:latest"), "found a:latest"),
        (IMAGE.replace("USER 1000", "USER root"), "found root"),
        (IMAGE.replace("USER 1000", "ARG ID=0\nUSER $ID:$ID"), "found 0:0"),
        (IMAGE.replace("USER 1000\n", ""), "found none"),
        (IMAGE.replace("USER 1000\n", "") + "USER 1000\n", "before CMD"),
        (IMAGE.replace("HEALTHCHECK NONE\n", ""), "expected HEALTHCHECK"),
        (IMAGE.replace('CMD ["a"]\n', ""), "expected CMD or ENTRYPOINT"),
        (IMAGE.replace('["a"]', "a b"), "expected a JSON list"),
        (IMAGE + "ADD http://a/b c\n", "found an address"),
        (IMAGE + "COPY missing.txt .\n", "expected missing.txt"),
        (IMAGE + "COPY ../outside .\n", "expected ../outside"),
        (IMAGE + "RUNN a\n", "expected an instruction"),
    ],
)
def test_mistakes_are_found(tmp_path: Path, text: str, problem: str) -> None:
    assert problems(IMAGE, tmp_path) == []
    assert any(problem in line for line in problems(text, tmp_path))


def test_run_lines_are_executed_below_a_folder(tmp_path: Path) -> None:
    """With the files that were copied, ARG and ENV, and their own absolute paths moved; a failure has its status."""
    root, folder = tmp_path / "tree", tmp_path / "folder"
    root.mkdir()
    (root / "a.txt").write_text("x", "utf-8")
    text = (
        "FROM a:1 AS build\nARG WORD=none\nENV MORE=1\nWORKDIR /place\nCOPY a.txt ./\n"
        'RUN mkdir /made && cat a.txt > /made/b && echo "$WORD$MORE" >> /made/b\nRUN exit 3\n'
        "FROM a:1\nCOPY --from=build /made /made\n"
    )
    statuses = [status for _, status in run_lines(text, root, folder, {"WORD": "given"})]
    assert statuses == [0, 3] and (folder / "made" / "b").read_text("utf-8") == "xgiven1\n"


def test_the_build_may_see_what_it_copies() -> None:
    """The list of what the build may see names every source of a COPY, and nothing else."""
    allowed = {
        line[1:] for line in (SERVER / "Containerfile.dockerignore").read_text("utf-8").split() if line[0] == "!"
    }
    copies = [step for step in parse(FILE.read_text("utf-8")) if step.name == "COPY" and "from" not in step.flags]
    assert allowed == {source for step in copies for source in step.value.split()[:-1]}


def test_the_compose_file_is_closed() -> None:
    """This machine's port alone, files read-only, no rights, the login as a secret that must be named."""
    document: dict[str, Any] = yaml.safe_load((SERVER / "compose.yaml").read_text("utf-8"))
    service = document["services"]["loradex"]
    assert service["ports"] == ["127.0.0.1:${PORT:-7860}:7860"]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    (loras,) = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert loras["target"] == "/loras" and loras["read_only"] and ":?" in loras["source"]
    assert service["secrets"] == ["login"] and ":?" in document["secrets"]["login"]["file"]
    named = {volume.partition(":")[0] for volume in service["volumes"] if isinstance(volume, str) and ":" in volume}
    assert named == set(document["volumes"])
    assert (SERVER / service["build"]["context"]).resolve() == ROOT
    assert ROOT / service["build"]["dockerfile"] == FILE


@pytest.fixture
def health() -> ModuleType:
    spec = importlib.util.spec_from_file_location("health", SERVER / "health.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def address() -> Iterator[str]:
    """A server that asks for a login."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            expected = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
            self.send_response(200 if self.headers["Authorization"] == expected else 401)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api/v1/zoo"
        server.shutdown()


def test_health_gives_the_login(
    health: ModuleType, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Healthy with the login of the file; not with another, without one, or where nothing listens."""
    file = tmp_path / "login"
    assert not health.is_healthy(address, file)
    file.write_text(f"{LOGIN}\n", "utf-8")
    assert health.is_healthy(address, file)
    file.write_text("name:another one", "utf-8")
    assert not health.is_healthy(address, file)
    assert not health.is_healthy("http://127.0.0.1:1/", file)
    assert LOGIN not in capsys.readouterr().err
