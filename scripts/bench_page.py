"""``python -m scripts.bench_page``: measures searches on the page by several users at once and prints JSON.

Each user has a browser context of their own. Needs a Chromium; takes a minute by default.
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
QUERIES = (
    "a slice of pizza",
    "hound + hat",
    "fruit - red",
    "a vehicle with wings",
    "musical instrument",
    "rain",
    "a cold drink",
    "tool",
    "bird",
    "face",
)
PAUSE = 1.0  # seconds between an answer and the next query
# Milliseconds from the key press to the frame that shows the new gallery. Consecutive queries have different answers.
SEARCH = """async (query) => {
  const box = document.querySelector('#ld-query input'), gallery = document.querySelector('#ld-results'), before = gallery.textContent;
  const changed = new Promise((resolve, reject) => {
    const observer = new MutationObserver(() => {
      if (gallery.querySelector('.ld-card') && gallery.textContent !== before) { observer.disconnect(); resolve(); }
    });
    observer.observe(gallery, {childList: true, subtree: true, characterData: true});
    setTimeout(() => reject(new Error(`no answer to ${query}`)), 10000);
  });
  box.value = query;
  box.dispatchEvent(new Event('input', {bubbles: true}));
  const began = performance.now();
  box.dispatchEvent(new KeyboardEvent('keypress', {key: 'Enter', code: 'Enter', bubbles: true}));
  await changed;
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def resident_memory_mb(process_id: int) -> float:
    """Resident memory of a process in MB."""
    lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def simulate_user(page: Page, number: int, deadline: float) -> list[float]:
    """Search and pause in turn until ``deadline``; returns the milliseconds of each search."""
    times = []
    await asyncio.sleep(number * PAUSE / 8)
    for count in range(10_000):
        if time.monotonic() > deadline:
            break
        times.append(await page.evaluate(SEARCH, QUERIES[(count + number) % len(QUERIES)]))
        await asyncio.sleep(PAUSE)
    return times


async def measure(address: str, server_id: int, people: int, seconds: float) -> dict[str, Any]:
    """Open a page for each user, warm up, and let all users search for some seconds."""
    failed: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        pages, load_seconds = [], []
        for _ in range(people):
            page = await (await browser.new_context()).new_page()
            page.on("requestfailed", lambda request: failed.append(request.url))
            page.on(
                "response",
                lambda response: failed.append(f"{response.status} {response.url}") if response.status >= 400 else None,
            )
            began = time.monotonic()
            await page.goto(address)
            await page.locator(".ld-card").first.wait_for()
            load_seconds.append(time.monotonic() - began)
            pages.append(page)
        for page in pages:
            await page.evaluate(SEARCH, "warm up")
        memory_before, deadline = resident_memory_mb(server_id), time.monotonic() + seconds
        memory_halfway: list[float] = []
        asyncio.get_running_loop().call_later(seconds / 2, lambda: memory_halfway.append(resident_memory_mb(server_id)))
        times_of_users = await asyncio.gather(
            *(simulate_user(page, number, deadline) for number, page in enumerate(pages))
        )
        times = sorted(chain.from_iterable(times_of_users))
        memory_after = resident_memory_mb(server_id)
        await browser.close()
    return {
        "people": people,
        "seconds": seconds,
        "searches": len(times),
        "p50_ms": round(statistics.median(times)),
        "p95_ms": round(times[int(0.95 * len(times))]),
        "worst_ms": round(times[-1]),
        "first_page_s": round(load_seconds[0], 2),
        "memory_mb": [round(memory_before), *(round(memory) for memory in memory_halfway), round(memory_after)],
        "failed": failed,
    }


def main() -> None:
    """Serve the shipped zoo, measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--people", type=int, default=8)
    options = parser.parse_args()
    command = [str(Path(sys.executable).with_name("loradex")), "serve", "--zoo", "miniature", "--port", "0", "--json"]
    began = time.monotonic()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
    ) as server:
        try:
            assert server.stdout is not None
            address = json.loads(server.stdout.readline())["page"]
            startup_seconds = time.monotonic() - began
            results = asyncio.run(measure(address, server.pid, options.people, options.seconds))
            sys.stdout.write(json.dumps({"up_s": round(startup_seconds, 2)} | results) + "\n")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
