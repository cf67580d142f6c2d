"""The help of the command line: fast, whole, with examples that the parser takes."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest
import typer.main
from click import Command
from typer import Context
from typer.core import TyperGroup

from app.cli import app
from scripts.cli_reference import REFERENCE, described

HEAVY = {"torch", "gradio", "fastapi", "sklearn", "open_clip", "diffusers", "faiss", "numpy", "mcp"}
TALKS_TO_A_CLIENT = {"mcp"}  # its stdout is the protocol's


def leaves(command: Command, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Command]]:
    """Every command that does something, by its words."""
    if not isinstance(command, TyperGroup):
        yield " ".join(names), command
        return
    context = Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from leaves(found, (*names, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def test_the_reference_is_what_the_commands_say() -> None:
    assert REFERENCE.read_text("utf-8") == described(), "python -m scripts.cli_reference writes it anew"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example_that_the_parser_takes(name: str) -> None:
    said = re.fullmatch(r"Examples?: (.+)", COMMANDS[name].epilog or "")
    assert said
    examples = [shlex.split(example) for example in said[1].split("; ")]
    assert any(" ".join(words).startswith(f"loradex {name}") or words[-2:] == ["loradex", name] for words in examples)
    for words in examples:
        own = words[words.index("loradex", len(words) - 2 if words[0] != "loradex" else 0) + 1 :]
        command = max((known for known in COMMANDS if " ".join(own).startswith(known)), key=len)
        COMMANDS[command].make_context(command, own[len(command.split()) :])


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - TALKS_TO_A_CLIENT))
def test_each_command_has_json_for_machines(name: str) -> None:
    assert any("--json" in option.opts for option in COMMANDS[name].params)


def test_help_imports_nothing_heavy_and_answers_at_once() -> None:
    program = "import sys, app.cli; sys.argv = ['loradex', '--help']\ntry: app.cli.main()\nexcept SystemExit: pass\nsys.stderr.write(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
    assert HEAVY.isdisjoint(loaded)
    took = []
    for _ in range(5):
        began = perf_counter()
        subprocess.run([Path(sys.executable).with_name("loradex"), "--help"], capture_output=True, check=True)
        took.append(perf_counter() - began)
    assert min(took) < 0.5
