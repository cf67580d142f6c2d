"""``python -m scripts.cli_reference``: writes docs/cli.md, the reference of all commands, from their help."""

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
NOTICE: Final = (
    "Made from the commands' own help by `python -m scripts.cli_reference`. Every command also takes `--help`."
)

Command = TyperCommand | TyperGroup


def escape_markup(text: str | None) -> str:
    """Escape HTML tags in a help text for Markdown."""
    return escape((text or "").replace("  [", " ["), quote=False)


def subcommands(command: Command) -> list[Command]:
    """The commands of a group in the order of its help, panel by panel."""
    commands = (
        [subcommand for subcommand in command.commands.values() if isinstance(subcommand, Command)]
        if isinstance(command, TyperGroup)
        else []
    )
    panels = list(dict.fromkeys(str(subcommand.rich_help_panel) for subcommand in commands))
    return sorted(commands, key=lambda subcommand: panels.index(str(subcommand.rich_help_panel)))


def render_contents(command: Command, name: str) -> Iterator[str]:
    """A list of a group's commands, below the names of their panels."""
    for panel, members in groupby(subcommands(command), lambda subcommand: subcommand.rich_help_panel):
        yield f"**{panel if isinstance(panel, str) else 'Commands'}**\n"
        yield from (
            f"- [`{name} {subcommand.name}`](#{name.replace(' ', '-')}-{subcommand.name}): {escape_markup(subcommand.help)}"
            for subcommand in members
        )
        yield ""


def render_parameters(command: Command, context: Context) -> Iterator[str]:
    """Lists of a command's arguments and options, with defaults."""
    for kind, heading in (("argument", "Arguments"), ("option", "Options")):
        parameters = [parameter for parameter in command.params if parameter.param_type_name == kind]
        records = [parameter.get_help_record(context) for parameter in parameters]
        if records:
            yield f"**{heading}**\n"
            names = [record[0].split(" <")[0] if kind == "argument" else record[0] for record in records if record]
            yield from (
                f"- `{name}`: {escape_markup(record[1])}"
                for name, record in zip(names, filter(None, records), strict=True)
            )
            yield ""


def render_command(command: Command, name: str, level: int) -> Iterator[str]:
    """A section for a command with its usage, parameters and examples, then the sections of its subcommands."""
    context = Context(command, info_name=name)
    yield f"{'#' * level} {f'`{name}`' if level > 1 else 'The command line'}\n"
    yield f"{escape_markup(command.help)}\n"
    yield from ["```console", f"$ {name} {' '.join(command.collect_usage_pieces(context))}", "```", ""]
    yield from render_parameters(command, context)
    heading, *lines = (command.epilog or "").split("\n\n")
    yield from [f"**{heading.rstrip(':')}**", "", "```console", *(f"$ {line}" for line in lines), "```", ""]
    yield from render_contents(command, name)
    for subcommand in subcommands(command):
        yield from render_command(subcommand, f"{name} {subcommand.name}", level + 1)


def render_reference() -> str:
    """The reference as Markdown; it does not depend on the width of the terminal."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    title, *rest = render_command(command, "loradex", 1)
    return "\n".join([title, f"{NOTICE}\n", *rest]).strip() + "\n"


if __name__ == "__main__":
    REFERENCE.write_text(render_reference(), "utf-8")
