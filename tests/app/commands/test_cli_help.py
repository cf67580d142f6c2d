"""The help of the command line is complete, correct and fast; docs/cli.md is generated from it."""

import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from loradex.app.commands.main import app
from scripts.cli_reference import REFERENCE, Command, render_reference, subcommands

HEAVY = {"torch", "gradio", "fastapi", "sklearn", "open_clip", "diffusers", "transformers", "faiss", "numpy", "mcp"}
WITHOUT_JSON = {"loradex mcp"}  # speaks a protocol on stdout
MEANINGS = {  # how many different help texts an option has; a zoo to read has another default than one to write
    "--base": 3,
    "--count": 2,
    "--dry-run": 2,
    "--engine": 2,
    "--folder": 4,
    "--labels": 2,
    "--layers": 2,
    "--like": 2,
    "--out": 2,
    "--rank": 2,
    "--replace": 2,
    "--seed": 3,
    "--size": 2,
    "--spell": 2,
    "--steps": 2,
    "--tree": 3,
    "--words": 3,
    "--yes": 2,
    "--zoo": 2,
}
TRIES = 10  # the machine may be busy


def commands(command: Command, name: str) -> Iterator[tuple[str, Command]]:
    """Yield a command and its subcommands, with the words that call them."""
    yield name, command
    for member in subcommands(command):
        yield from commands(member, f"{name} {member.name}")


ROOT = get_command(app)
assert isinstance(ROOT, TyperGroup)
GROUP = ROOT
COMMANDS = dict(commands(GROUP, "loradex"))
LEAF_COMMANDS = {name: command for name, command in COMMANDS.items() if not subcommands(command)}
EXAMPLES = [(name, line) for name, command in COMMANDS.items() for line in (command.epilog or "").split("\n\n")[1:]]


def parsed(words: list[str]) -> str:
    """The command that a line calls; raises an error if the parser refuses a word."""
    name, command, context = words[0], GROUP, GROUP.make_context(words[0], words[1:])
    while isinstance(command, TyperGroup):
        called, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        name, context = f"{name} {called}", command.make_context(called, rest, parent=context)
    return name


@pytest.mark.parametrize("columns", ["30", "200"])
def test_the_reference_is_current_at_any_width(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERMINAL_WIDTH", columns)
    assert REFERENCE.read_text("utf-8") == render_reference(), "python -m scripts.cli_reference updates it"


def test_the_reference_names_every_command() -> None:
    assert len(COMMANDS) == 42
    lines = REFERENCE.read_text("utf-8").splitlines()
    assert all(sum(line.endswith(f"# `{name}`") for line in lines) == 1 for name in COMMANDS if name != "loradex")


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_an_example(name: str) -> None:
    assert any(example.startswith(name) for command, example in EXAMPLES if command == name)


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
def test_the_parser_accepts_each_example(name: str, example: str) -> None:
    words = shlex.split(example)
    words = (
        words[words.index("--") + 1 :] if words[0] != "loradex" else words
    )  # the command that another program starts
    assert f"{parsed(words)} ".startswith(f"{name} ")


@pytest.mark.parametrize(
    "line", ["loradex zoo shew 1", "loradex search dog --rang 8", "loradex label", "loradex serve --port many"]
)
def test_the_parser_refuses_wrong_lines(line: str) -> None:
    with pytest.raises(Exception, match=r"No such command|No such option|Missing|valid integer"):
        parsed(shlex.split(line))


@pytest.mark.parametrize("name", LEAF_COMMANDS)
def test_each_command_but_mcp_has_json(name: str) -> None:
    assert any("--json" in option.opts for option in LEAF_COMMANDS[name].params) != (name in WITHOUT_JSON)


def test_an_option_has_the_same_help_everywhere() -> None:
    helps = defaultdict(set)
    for option in (option for command in LEAF_COMMANDS.values() for option in command.params):
        for flag in option.opts:
            if flag.startswith("--"):
                helps[flag].add(getattr(option, "help", None))
    assert {flag: len(texts) for flag, texts in helps.items() if len(texts) > 1} == MEANINGS


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_a_sentence_without_markup(name: str) -> None:
    command = COMMANDS[name]
    texts = [command.help, *(getattr(option, "help", None) for option in command.params)]
    assert all(text and text.endswith(".") and "[" not in text for text in texts)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys, loradex.app.commands.main; sys.argv = ['loradex', '--help']\n"
        "try: loradex.app.commands.main.main()\nexcept SystemExit: sys.stderr.write(' '.join(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr.split()
    assert "typer" in loaded and HEAVY.isdisjoint(loaded)
    assert not any(name.startswith("loradex.app.commands.tables") for name in loaded)


def test_help_answers_within_half_a_second() -> None:
    def measure() -> float:
        start = perf_counter()
        done = subprocess.run(
            [Path(sys.executable).with_name("loradex"), "--help"], capture_output=True, text=True, check=True
        )
        assert "Usage: loradex" in done.stdout
        return perf_counter() - start

    assert any(measure() < 0.5 for _ in range(TRIES))
