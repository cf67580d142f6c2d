"""Writes docs/cli.md, the reference of every command: ``python -m scripts.cli_reference``."""

from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Final

from typer import Context
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from loradex.app.commands.main import app

REFERENCE: Final = Path(__file__).parents[1] / "docs" / "cli.md"
MADE: Final = (
    "Made from the commands' own help by `python -m scripts.cli_reference`. Every command also takes `--help`."
)

Command = TyperCommand | TyperGroup


def plain(text: str | None) -> str:
    """A text in which Markdown sees no tags."""
    return escape((text or "").replace("  [", " ["), quote=False)


def members(command: Command) -> list[Command]:
    """The commands of a group as its help has them, panel by panel."""
    found = (
        [each for each in command.commands.values() if isinstance(each, Command)]
        if isinstance(command, TyperGroup)
        else []
    )
    panels = list(dict.fromkeys(str(each.rich_help_panel) for each in found))
    return sorted(found, key=lambda each: panels.index(str(each.rich_help_panel)))


def contents(command: Command, name: str) -> Iterator[str]:
    """A line for each command of a group, below the names of its panels where it has some."""
    for panel, panelled in groupby(members(command), lambda each: each.rich_help_panel):
        yield f"**{panel if isinstance(panel, str) else 'Commands'}**\n"
        yield from (
            f"- [`{name} {each.name}`](#{name.replace(' ', '-')}-{each.name}): {plain(each.help)}" for each in panelled
        )
        yield ""


def parameters(command: Command, context: Context) -> Iterator[str]:
    """A line for each argument, then one for each option, with defaults."""
    for kind, heading in (("argument", "Arguments"), ("option", "Options")):
        said = [each.get_help_record(context) for each in command.params if each.param_type_name == kind]
        if said:
            yield f"**{heading}**\n"
            names = [each[0].split(" <")[0] if kind == "argument" else each[0] for each in said if each]
            yield from (f"- `{name}`: {plain(each[1])}" for name, each in zip(names, filter(None, said), strict=True))
            yield ""


def section(command: Command, name: str, level: int) -> Iterator[str]:
    """A command with its usage, arguments, options and examples, then those below it."""
    context = Context(command, info_name=name)
    yield f"{'#' * level} {f'`{name}`' if level > 1 else 'The command line'}\n"
    yield f"{plain(command.help)}\n"
    yield from ["```console", f"$ {name} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    yield from parameters(command, context)
    heading, *lines = (command.epilog or "").split("\n\n")
    yield from [f"**{heading.rstrip(':')}**", "", "```console", *(f"$ {line}" for line in lines), "```", ""]
    yield from contents(command, name)
    for each in members(command):
        yield from section(each, f"{name} {each.name}", level + 1)


def described() -> str:
    """The document, the same for a terminal of any width."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    title, *rest = section(command, "loradex", 1)
    return "\n".join([title, f"{MADE}\n", *rest]).strip() + "\n"


if __name__ == "__main__":
    REFERENCE.write_text(described(), "utf-8")
