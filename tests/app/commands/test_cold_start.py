"""How a search by text starts from cold: what it imports, and how long it takes beside torch."""

import subprocess
import sys

import pytest

from scripts.bench_cold import bench_cold

# Each takes a tenth of a second to seconds to import.
HEAVY = {
    "diffusers",
    "fastapi",
    "gradio",
    "httpx",
    "huggingface_hub",
    "mcp",
    "open_clip",
    "pandas",
    "pyarrow",
    "scipy",
    "sklearn",
    "sympy",
    "timm",
    "torch._dynamo",
    "torchvision",
    "transformers",
}
MAX_RATIO = 2.5  # of the time that `import torch` takes


def test_a_search_by_text_imports_nothing_heavy_but_torch() -> None:
    program = (
        "import sys, loradex.app.commands.main\n"
        "sys.argv = ['loradex', 'search', 'a slice of pizza', '--zoo', 'miniature', '--json']\n"
        "try: loradex.app.commands.main.main()\nexcept SystemExit: sys.stderr.write('\\n'.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert '"hits"' in done.stdout
    loaded = set(done.stderr.splitlines())
    assert {"torch", "faiss"} <= loaded
    assert not HEAVY & loaded


@pytest.mark.long
def test_a_search_from_cold_takes_at_most_two_and_a_half_times_as_long_as_importing_torch() -> None:
    times = bench_cold(runs=5)
    assert times["cpu_least_ratio"] <= MAX_RATIO and times["wall_least_ratio"] <= MAX_RATIO, times
