"""A second process for tests, run as ``python zoo_child.py COMMAND FOLDER ...``."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

from loradex.index import Filter, Zoo
from tests.index.zoo_oracle import DIM, SPACE, Given, State, models, positions_of, random_positions, random_vectors

BATCH = 8
MAINTENANCE = 0.3  # probability of maintenance after a batch
NOBODY = 65534


def batch_of(round_: int, number: int) -> dict[str, Given]:
    """The ids and positions of a batch, the same in every process."""
    ids = [f"r{round_:04}-b{number:03}-{i}" for i in range(BATCH)]
    return dict(zip(ids, random_positions(BATCH, seed=1000 * round_ + number), strict=True))


def add(folder: Path) -> None:
    """Add one batch."""
    with Zoo.open(folder) as zoo:
        batch = batch_of(0, 0)
        zoo.add(models(batch), list(batch.values()))


def add_and_die(folder: Path) -> None:
    """Add three batches, then kill this process, which leaves the log."""
    with Zoo.open_or_create(folder, SPACE, DIM) as zoo:
        for number in range(3):
            batch = batch_of(0, number)
            zoo.add(models(batch), list(batch.values()))
        os.kill(os.getpid(), signal.SIGKILL)


def hold(folder: Path) -> None:
    """Open the zoo for writing, report it, and keep it open."""
    with Zoo.open_or_create(folder, SPACE, DIM):
        sys.stdout.write("open\n")
        sys.stdout.flush()
        time.sleep(60)


def is_found(zoo: Zoo, batch: State) -> bool:
    """Whether a search for each position of a batch, by its kind of evidence, finds that position."""
    for id, given in batch.items():
        for kind, position in positions_of(given).items():
            hits = zoo.search(position.vector, len(zoo), Filter(found_by=(kind,)))
            scores = [hit.score for hit in hits if hit.model.id == id]
            if not np.allclose(scores, [position.scale + position.bias], rtol=0, atol=1e-5):
                return False
    return True


def add_until_killed(folder: Path, notes: Path, round_: int) -> None:
    """Add batches, with maintenance at random, and note each batch on the disk after the zoo acknowledged it."""
    rng = random.Random(round_)  # noqa: S311
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    last_noted = notes.read_text().splitlines()[-1:]
    with Zoo.open_or_create(folder, SPACE, DIM) as zoo:
        for line in last_noted:
            batch = batch_of(*map(int, line.split()))
            if not is_found(zoo, batch):
                raise AssertionError(f"lost: {line}")
        for number in range(1000):
            batch = batch_of(round_, number)
            zoo.add(models(batch), list(batch.values()))
            os.write(descriptor, f"{round_} {number}\n".encode())
            os.fsync(descriptor)
            if rng.random() < MAINTENANCE:
                rng.choice(
                    [lambda: zoo.save_engine("exact"), lambda: zoo.save_engine("codes"), zoo.compact, zoo.rebuild]
                )()


def kill(folder: Path, notes: Path, rounds: int, seed: int) -> None:
    """Start a process that adds batches and kill it, many times: after a random time, or after some batches."""
    rng = random.Random(seed)  # noqa: S311
    for round_ in range(rounds):
        child = os.fork()
        if not child:
            add_until_killed(folder, notes, round_)
        if round_ % 2:
            wait_for(notes, rng.randint(2, 6))
        time.sleep(rng.choice([0.01, 0.1]) * rng.random())
        os.kill(child, signal.SIGKILL)
        if (status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) != -signal.SIGKILL:
            raise AssertionError(f"round {round_} ended with {status} before it was killed")


def wait_for(notes: Path, lines: int) -> None:
    """Wait until a file has grown by some lines."""
    before = notes.read_text().count("\n") if notes.exists() else 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (notes.exists() and notes.read_text().count("\n") >= before + lines):
        time.sleep(0.001)


def become_nobody() -> None:
    """Give up the rights of root, if this process has them."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def read_as_nobody(folder: Path) -> None:
    """Read a zoo without write access; print its number of models and the first hit of a search."""
    query = random_vectors(1)[0]  # NumPy imports modules on demand, which nobody cannot read
    np.union1d([1], [2])
    np.isin([1], [2])
    become_nobody()
    with Zoo.open(folder, read_only=True) as zoo:
        sys.stdout.write(f"{len(zoo)} {zoo.search(query, 1)[0].model.id}\n")


def write_as_nobody(folder: Path) -> None:
    """Try to open a zoo for writing without write access."""
    become_nobody()
    Zoo.open(folder).close()


if __name__ == "__main__":
    command, folder, *more = sys.argv[1:]
    if command == "kill":
        kill(Path(folder), Path(more[0]), int(more[1]), int(more[2]))
    else:
        {
            "add": add,
            "add_and_die": add_and_die,
            "hold": hold,
            "read_as_nobody": read_as_nobody,
            "write_as_nobody": write_as_nobody,
        }[command](Path(folder))
