"""``python -m scripts.check_container``: checks docs/server/Containerfile without a container engine.

``--run`` also executes its RUN lines, in order, in a temporary folder and a clean virtual environment of this Python:
absolute paths that the file itself makes are moved below that folder. It installs everything, so it takes minutes and
gigabytes. ``--arg TORCH_BACKEND=`` sets an ARG. Where hadolint is on the PATH, its rules are checked too.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FILE: Final = ROOT / "docs" / "server" / "Containerfile"
KNOWN: Final = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
VARIABLE: Final = re.compile(r"\$\{?(\w+)\}?")
PINNED: Final = re.compile(r"[\w./-]+:\d[\w.-]*(@sha256:[0-9a-f]{64})?")  # a tag that begins with a version


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its line, name, ``--flags``, and what follows them, continued lines joined."""

    line: int
    name: str
    flags: dict[str, str]
    value: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Containerfile without here-documents and parser directives.

    The libraries for this on the package index are unmaintained, or compiled from Go.
    """
    instructions, parts, start = list[Instruction](), list[str](), 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        start = start if parts else number
        parts.append(line.strip().removesuffix("\\").strip())
        if line.rstrip().endswith("\\"):
            continue
        name, _, rest = " ".join(parts).partition(" ")
        flags = dict[str, str]()
        while rest.startswith("--"):
            flag, _, rest = rest.partition(" ")
            key, _, value = flag[2:].partition("=")
            flags[key], rest = value, rest.lstrip()
        instructions.append(Instruction(start, name, flags, rest))
        parts = []
    return instructions


def stages(instructions: Sequence[Instruction]) -> list[list[Instruction]]:
    """The instructions from each FROM to the next."""
    starts = [i for i, instruction in enumerate(instructions) if instruction.name == "FROM"]
    return [list(instructions[a:b]) for a, b in zip(starts, [*starts[1:], len(instructions)], strict=True)]


def arguments(stage: Sequence[Instruction], given: dict[str, str]) -> dict[str, str]:
    """The values of a stage's ARGs: those given, else their defaults."""
    pairs = (instruction.value.partition("=") for instruction in stage if instruction.name == "ARG")
    return {name: given.get(name, default) for name, _, default in pairs}


def expand(value: str, variables: dict[str, str]) -> str:
    """A text with its variables replaced, those that are not known left as they are."""
    return VARIABLE.sub(lambda match: variables.get(match[1], match[0]), value)


def problems(text: str, root: Path) -> list[str]:
    """What is wrong in a Containerfile that is built from the folder ``root``, one line each."""
    instructions = parse(text)
    if not any(instruction.name == "FROM" for instruction in instructions):
        return ["line 1: expected FROM, found none; name a base image"]
    return [
        *(problem for instruction in instructions for problem in problems_of_one(instruction, root)),
        *problems_of_image(stages(instructions)[-1]),
    ]


def problems_of_one(instruction: Instruction, root: Path) -> Iterator[str]:
    """What is wrong in an instruction by itself."""
    where, value = f"line {instruction.line}: {instruction.name}", instruction.value
    if instruction.name not in KNOWN:
        yield f"{where}: expected an instruction of Containerfiles in capitals, found another; correct it"
    if instruction.name == "ADD" and "://" in value:
        yield f"{where}: expected files of the tree, found an address; what is fetched has to be pinned"
    if instruction.name == "FROM" and not PINNED.fullmatch(value.split()[0]):
        yield f"{where}: expected an image with a version as its tag, found {value.split()[0]}; write image:1.2"
    if instruction.name in {"COPY", "ADD"} and "from" not in instruction.flags:
        for source in value.split()[:-1]:
            if not (root / source).resolve().is_relative_to(root.resolve()) or not any(root.glob(source)):
                yield f"{where}: expected {source} in the tree, found none; correct the path"
    if instruction.name in {"CMD", "ENTRYPOINT"} and not is_words(value):
        yield f"{where}: expected a JSON list of words, found {value}; without one, a shell gets the signals"


def problems_of_image(stage: Sequence[Instruction]) -> Iterator[str]:
    """What is wrong with the stage that becomes the image."""
    names = [instruction.name for instruction in stage]
    variables = arguments(stage, {})
    starts = [i for i, name in enumerate(names) if name in {"CMD", "ENTRYPOINT"}]
    users = [expand(instruction.value, variables) for instruction in stage if instruction.name == "USER"]
    if not starts:
        yield "last stage: expected CMD or ENTRYPOINT, found neither; say what the container runs"
    if not users or users[-1].partition(":")[0] in {"root", "0", ""} or "USER" not in names[: min(starts, default=0)]:
        yield f"last stage: expected a USER other than root before CMD, found {users[-1] if users else 'none'}; add it"
    if "HEALTHCHECK" not in names:
        yield "last stage: expected HEALTHCHECK, found none; add it"


def is_words(value: str) -> bool:
    """Whether a value is a JSON list of words."""
    try:
        words = json.loads(value)
    except ValueError:
        return False
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def own_paths(instructions: Sequence[Instruction]) -> list[str]:
    """The absolute paths that a Containerfile makes itself: working folders, and what is copied between stages."""
    made = {instruction.value for instruction in instructions if instruction.name == "WORKDIR"}
    copies = [instruction.value.split() for instruction in instructions if "from" in instruction.flags]
    return sorted({*made, *(source for words in copies for source in words[:-1])}, key=len, reverse=True)


def run_lines(text: str, root: Path, folder: Path, given: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Execute the RUN lines below a folder, with the COPYs of the tree before them; each line and its exit status."""
    instructions = parse(text)
    paths = re.compile(rf"(?<![\w./])({'|'.join(map(re.escape, own_paths(instructions))) or '(?!)'})(?=[/\s:]|$)")
    venv.create(folder / "python", with_pip=True)
    for stage in stages(instructions):
        environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
        environment |= {"PATH": f"{folder / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
        environment |= {"HOME": str(folder), **arguments(stage, given)}
        work = folder
        for instruction in stage:
            value = paths.sub(lambda match: f"{folder}{match[1]}", instruction.value)
            if instruction.name == "ENV":
                environment |= dict(word.split("=", 1) for word in expand(value, environment).split())
            elif instruction.name == "WORKDIR":
                work = Path(value)
                work.mkdir(parents=True, exist_ok=True)
            elif instruction.name == "COPY" and "from" not in instruction.flags:
                *sources, target = value.split()
                for source in sources:
                    copy(root / source, work / target / source if target.endswith("/") else work / target)
            elif instruction.name == "RUN":
                yield value, subprocess.run(["/bin/sh", "-euc", value], cwd=work, env=environment).returncode


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, links as links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copyfile(source, target)


def main() -> None:
    """Check, and print what is wrong; the exit status is 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="also execute the RUN lines")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="value of an ARG")
    options = parser.parse_args()
    text = FILE.read_text("utf-8")
    found = [f"{FILE.name}: {problem}" for problem in problems(text, ROOT)]
    if hadolint := shutil.which("hadolint"):
        result = subprocess.run([hadolint, "--no-color", str(FILE)], capture_output=True, text=True)
        found += (result.stdout + result.stderr).splitlines()
    if options.run and not found:
        given = dict(pair.split("=", 1) for pair in options.arg)
        with TemporaryDirectory() as folder:
            for line, status in run_lines(text, ROOT, Path(folder), given):
                sys.stdout.write(f"{status}  {line}\n")
                if status:
                    found.append(f"{FILE.name}: RUN {line}: expected exit status 0, found {status}; see above")
                    break
    sys.stdout.write("".join(f"{problem}\n" for problem in found or [f"{FILE.name}: nothing found"]))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
