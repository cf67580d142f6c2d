"""What the page says of models that wait for an expert: how many, and commands to copy that get one."""

from collections.abc import Sequence
from html import escape
from typing import Final

from loradex.app.backend import Backend
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.reporting import pluralize
from loradex.app.web.elements import copy_button, printable, table
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError
from loradex.retrieval.lora.family import UNKNOWN
from loradex.retrieval.ways_to_expert import ADD_EXPERT

MAX_FAMILIES: Final = 6
ADD: Final = "add a shared one"
GROW_ONE: Final = "grow one"
ONLY_SHARED: Final = "not possible for this family yet, only if somebody shares one"
TRAIN: Final = "not possible for classifiers: loradex train FOLDER --tree NAME trains one"
NO_WAY: Final = "not possible: their layers are those of no base model that Loradex knows"


def render_waiting(backend: Backend) -> str:
    """The families of the zoo with models that no expert has read, each with its commands; "" if there are none."""
    try:
        waiting = backend.waiting()
    except (LoradexError, ZooError):
        return ""  # the rest of the page says what is wrong with the zoo
    if not waiting:
        return ""
    total = pluralize(sum(each.count for each in waiting), "model")
    return render_families(
        [(each.family, pluralize(each.count, "model"), each.commands) for each in waiting],
        f"Without an expert, which reads from the weights what a LoRA draws: {total} of this zoo.",
    )


def render_run_ways(answer: IndexAnswer) -> str:
    """The families of an indexing run with files that no expert reads, each with its commands; "" if there are none."""
    ways = [(family, pluralize(count, "file"), commands) for family, count, commands in answer.ways()]
    return render_families(ways, "Commands on the server's machine that get an expert:") if answer.next else ""


def render_families(ways: Sequence[tuple[str, str, Sequence[str]]], why: str) -> str:
    """A panel with the commands of each family: its name, how many wait, commands."""
    rows = [(ADD, commands_line([ADD_EXPERT]))] if any(commands for _, _, commands in ways) else []
    for family, count, commands in ways[:MAX_FAMILIES]:
        grow = grow_commands(commands)
        other = NO_WAY if family == UNKNOWN else ONLY_SHARED if commands else TRAIN
        rows.append(
            (f"{GROW_ONE} for {printable(family)[:40]} ({count})", commands_line(grow) if grow else escape(other))
        )
    if len(ways) > MAX_FAMILIES:
        rows.append(("more families", f"{len(ways) - MAX_FAMILIES:,}"))
    return panel(why, rows)


def render_commands(commands: Sequence[str], why: str) -> str:
    """A panel with the commands that get an expert for one file; "" without commands."""
    if not commands:
        return ""
    grow = grow_commands(commands)
    return panel(why, [(ADD, commands_line([ADD_EXPERT])), *([(GROW_ONE, commands_line(grow))] if grow else [])])


def grow_commands(commands: Sequence[str]) -> list[str]:
    """The commands that grow an expert, without the one that adds a shared one."""
    return [command for command in commands if command != ADD_EXPERT]


def commands_line(commands: Sequence[str]) -> str:
    """Commands to be run one after another, each with a button that copies it."""
    return ", then ".join(f"<code>{escape(command)}</code> {copy_button(command, 'copy')}" for command in commands)


def panel(why: str, rows: Sequence[tuple[str, str]]) -> str:
    """A box with a sentence and a table of ways to an expert."""
    return f'<section class="ld-note ld-ways"><p class="ld-why">{escape(why)}</p>{table(rows)}</section>'
