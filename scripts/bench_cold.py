"""``python -m scripts.bench_cold [N]``: a search by text from cold beside ``import torch``, N times; prints JSON.

From cold is a new process whose files are in the page cache, as they are on any second run.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Final

RUNS: Final = 15
COMMANDS: Final = {
    "torch": [sys.executable, "-c", "import torch"],
    "search": [str(Path(sys.executable).with_name("loradex")), "search", "a slice of pizza", "--zoo", "miniature"],
}


def bench_cold(runs: int = RUNS) -> dict[str, float]:
    """Wall time and processor time (user and system) of both commands, and their ratios.

    The least time is what a machine that does nothing else would take; the median shows how busy this one was.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as home:
        for command in COMMANDS.values():
            run_command(command, home)  # brings the files into the page cache
        for _ in range(runs):
            for name, command in COMMANDS.items():
                times[name].append(run_command(command, home))
    result = dict[str, float]()
    for number, clock in enumerate(("wall", "cpu")):
        for summary, function in (("least", min), ("median", statistics.median)):
            torch, search = (function(pair[number] for pair in times[name]) for name in COMMANDS)
            result |= {f"torch_{clock}_{summary}_s": torch, f"search_{clock}_{summary}_s": search}
            result[f"{clock}_{summary}_ratio"] = search / torch
    return result


def run_command(command: list[str], home: str) -> tuple[float, float]:
    """Run a command without a person's own zoo; return its wall and processor time in seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"HOME": home})
    wall, after = perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    """Measure and print."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    sys.stdout.write(json.dumps({name: round(value, 3) for name, value in bench_cold(runs).items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
