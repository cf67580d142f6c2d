"""Sessions with one fault each, run as ``python zoo_faults.py FOLDER KIND MOST SEED`` with faults.c preloaded.

Prints how many calls a session makes, how many faults were tried, and how the sessions ended. A traceback shows what
was lost or broken after a fault.
"""

import ctypes
import os
import random
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from loradex.index import Filter, KnownFile, Zoo, ZooError
from loradex.index.disk import typed_errors
from loradex.index.parquet import export_zoo
from loradex.index.sqlite.catalogue import CATALOGUE
from tests.index.zoo_oracle import (
    DIM,
    KINDS,
    SPACE,
    Given,
    agree,
    models,
    nearest,
    positions_of,
    random_positions,
    random_vectors,
    same,
    stores,
)

KILLED = -signal.SIGKILL
REFUSED = 3  # status of a session that ended with a ZooError
QUERY = random_vectors(1, seed=99)[0]
PRELOADED = ctypes.CDLL(None)


@dataclass(frozen=True)
class Expected:
    """The content of a zoo after a step."""

    state: dict[str, Given] = field(default_factory=dict)
    files: tuple[str, ...] = ()


Step = tuple[str, Callable[[Zoo], object], Expected]


def steps(folder: Path) -> list[Step]:
    """The steps of a session, with the content of the zoo after each."""
    now, session_steps = Expected(), list[Step]()

    def add_step(name: str, work: Callable[[Zoo], object], expected: Expected) -> Expected:
        session_steps.append((name, work, expected))
        return expected

    def add_batch(batch: dict[str, Given], before: Expected) -> Expected:
        return add_step(
            "add",
            lambda zoo: zoo.add(models(batch), list(batch.values()), {id: id.encode() for id in batch}),
            Expected(before.state | batch, before.files),
        )

    for number in range(4):
        ids = [f"m{number}-{i}" for i in range(5)]
        now = add_batch(dict(zip(ids, random_positions(5, seed=number), strict=True)), now)
    now = add_batch(dict(zip(["m1-0", "m1-1", "new"], random_positions(3, seed=50), strict=True)), now)
    now = add_batch({"new": {kind: positions_of(random_vectors(1)[0])[KINDS[0]] for kind in KINDS[1:]}}, now)
    now = add_step(
        "note",
        lambda zoo: zoo.note_files(
            [
                KnownFile("/loras/a", 1, 2, "m0-0"),
                KnownFile("/loras/b", 1, 2, None, "broken"),
                KnownFile("/needles/c", 1, 2, "m0-1", name="Haystack", facts={"tags": ["pin"]}),
            ]
        ),
        Expected(now.state, ("/loras/a", "/loras/b", "/needles/c")),
    )
    now = add_step("save", lambda zoo: zoo.save_engine("codes"), now)
    removed = ["m2-0", "m2-1", "m0-0"]
    now = add_step(
        "remove",
        lambda zoo: zoo.remove(removed),
        Expected({id: given for id, given in now.state.items() if id not in removed}, ("/loras/b", "/needles/c")),
    )
    now = add_step("rebuild", lambda zoo: zoo.rebuild("exact"), now)
    now = add_step("compact", lambda zoo: zoo.compact(), now)
    now = add_step("copy", lambda zoo: copy(zoo, folder / "copy"), now)
    add_step("export", lambda zoo: export_zoo(zoo, folder / "zoo.parquet"), now)
    return session_steps


def copy(zoo: Zoo, folder: Path) -> None:
    """Copy a zoo to a folder, which may have a copy already."""
    with typed_errors(folder):
        (folder / CATALOGUE).unlink(missing_ok=True)
    zoo.copy_to(folder)


def session(folder: Path, notes: Path) -> None:
    """Do all steps and note each in a file when it is done. A step that raises a ``ZooError`` is tried once more."""
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    with Zoo.open_or_create(folder, SPACE, DIM) as zoo:
        for name, work, _ in steps(folder):
            try:
                work(zoo)
            except ZooError as error:
                check_message(error)
                work(zoo)
            os.write(descriptor, f"{PRELOADED.fault_count()} {name}\n".encode())
            os.fsync(descriptor)
            zoo.search(QUERY, 3)


def check_message(error: ZooError) -> None:
    """Check that an error message is one line that says what was expected and found."""
    assert "\n" not in str(error) and "expected" in str(error) and "found" in str(error), str(error)


def fork(work: Callable[[], object]) -> int:
    """Run a function in a child process and return its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 0
    try:
        work()
    except ZooError as error:
        check_message(error)
        traceback.print_exc()
        status = REFUSED
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stderr.flush()
    os._exit(status)


def has_content(zoo: Zoo, expected: Expected) -> bool:
    """Whether a zoo has the expected content, by all ways of reading it."""
    ids = sorted(expected.state)
    if [model.id for model in zoo.models()] != ids:
        return False
    hits, needles = zoo.search(QUERY, 99), ["m0-1"] if "/needles/c" in expected.files else []
    return (
        stores(zoo, expected.state)
        and list(zoo.models()) == models(ids)
        and zoo.fingerprints() == {id: id.encode() for id in ids}
        and tuple(zoo.known_files()) == expected.files
        and same(hits, nearest(expected.state, QUERY, 99))
        and agree(hits, expected.state, QUERY)
        and sorted(model.id for model in zoo.find(["a LoRA"], 99)) == ids
        and [model.id for model in zoo.find(["haystack", "needles", "pin"], 99)] == needles
        and [model.id for model in zoo.models(Filter(tags=("Pin",)))] == needles
    )


def check(folder: Path, notes: Path) -> None:
    """Check that a zoo has the content after the last noted step or the next, and that a second session succeeds."""
    done = len(notes.read_text().splitlines()) if notes.exists() else 0
    plan = steps(folder)
    allowed = [Expected(), *(expected for _, _, expected in plan)][done : done + 2]
    if (folder / CATALOGUE).exists():
        with Zoo.open(folder, space=SPACE, read_only=True) as zoo:
            assert any(has_content(zoo, expected) for expected in allowed), f"after {done} steps"
        with Zoo.open(folder, space=SPACE) as zoo:
            assert any(has_content(zoo, expected) for expected in allowed), f"after {done} steps, opened for writing"
            assert zoo.verify() == []
    else:
        assert not done
    check_copies(folder, allowed)
    session(folder, notes)
    with Zoo.open(folder, read_only=True) as zoo:
        assert has_content(zoo, plan[-1][-1]) and zoo.verify() == []
    check_copies(folder, [plan[-1][-1]])
    assert not [path for path in folder.rglob("*") if path.name.endswith((".part", "-wal", "-journal"))]


def check_copies(folder: Path, allowed: list[Expected]) -> None:
    """Check that copies and exports are complete or absent."""
    if (folder / "copy" / CATALOGUE).exists():
        with Zoo.open(folder / "copy", read_only=True) as zoo:
            assert any(has_content(zoo, expected) for expected in allowed)
    if (folder / "zoo.parquet").exists():
        assert pq.read_table(folder / "zoo.parquet", use_threads=False)["id"].to_pylist() == sorted(allowed[-1].state)


def attempt(parent: Path, kind: str, n: int, count: list[int]) -> int:
    """Run a session with a fault at its n-th call and check the zoo; return the exit status of the session."""
    shutil.rmtree(parent, ignore_errors=True)
    folder, notes = parent / "zoo", parent / "notes"
    folder.mkdir(parents=True)

    def faulty() -> None:
        PRELOADED.fault_arm(str(folder).encode(), kind.encode(), ctypes.c_long(n))
        session(folder, notes)
        (parent / "count").write_text(str(PRELOADED.fault_count()))

    status = fork(faulty)
    assert status in (0, REFUSED, KILLED), f"{kind} at {n}: session ended with {status}"
    assert fork(lambda: check(folder, notes)) == 0, f"{kind} at {n}: session ended with {status}; see above"
    if status == 0:
        count.append(int((parent / "count").read_text()))
    return status


def main(parent: Path, kind: str, most: int, seed: int) -> None:
    """Try faults at every call of a session, or, if there are more than ``most``, at random calls of each step."""
    count = list[int]()
    assert attempt(parent, "nothing", 0, count) == 0
    calls = count[0]
    ends = [int(line.split()[0]) for line in (parent / "notes").read_text().splitlines()[: len(steps(parent))]] + [
        calls
    ]
    chance = random.Random(f"{kind} {seed}")  # noqa: S311
    chosen = {
        chance.randint(start + 1, end) for start, end in zip([0, *ends], ends, strict=False) if start < end
    }  # one in each step
    while len(chosen) < min(most, calls):
        chosen.add(chance.randint(1, calls))
    tried = sorted(chosen)[:most] if most < calls else list(range(1, calls + 1))
    statuses, failures = list[int](), list[str]()
    for n in tried:
        try:
            statuses.append(attempt(parent, kind, n, count))
        except AssertionError as error:  # all failures are reported at the end
            failures.append(str(error))
    if failures:
        raise AssertionError("\n".join(failures))
    sys.stdout.write(f"{calls} {len(tried)} {statuses.count(0)} {statuses.count(REFUSED)} {statuses.count(KILLED)}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
