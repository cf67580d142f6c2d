"""``python -m scripts.bench_page``: how long a search takes on the page for several people at once, each in a browser of their own."""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from playwright.async_api import Page, async_playwright

FLAGS = [
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
THINK = 1.0  # seconds between an answer and the next query
# From the key press to the frame that shows another gallery; queries that follow each other have other answers.
SEARCH = """async (query) => {
  const box = document.querySelector('#ld-query input'), gallery = document.querySelector('#ld-results'), old = gallery.textContent;
  const changed = new Promise((done, failed) => {
    const seen = new MutationObserver(() => {
      if (gallery.querySelector('.ld-card') && gallery.textContent !== old) { seen.disconnect(); done(); }
    });
    seen.observe(gallery, {childList: true, subtree: true, characterData: true});
    setTimeout(() => failed(new Error(`no answer to ${query}`)), 10000);
  });
  box.value = query;
  box.dispatchEvent(new Event('input', {bubbles: true}));
  const began = performance.now();
  box.dispatchEvent(new KeyboardEvent('keypress', {key: 'Enter', code: 'Enter', bubbles: true}));
  await changed;
  await new Promise(requestAnimationFrame);
  return performance.now() - began;
}"""


def memory_of(process: int) -> float:
    """Resident memory in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


async def person(page: Page, number: int, until: float) -> list[float]:
    """Search, look, and search again; milliseconds of each search."""
    took = []
    await asyncio.sleep(number * THINK / 8)
    for turn in range(10_000):
        if time.monotonic() > until:
            break
        took.append(await page.evaluate(SEARCH, QUERIES[(turn + number) % len(QUERIES)]))
        await asyncio.sleep(THINK)
    return took


async def measure(address: str, server: int, people: int, seconds: float) -> dict[str, Any]:
    """Open the pages, warm up, and search."""
    failed: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        pages, usable = [], []
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
            usable.append(time.monotonic() - began)
            pages.append(page)
        for page in pages:
            await page.evaluate(SEARCH, "warm up")
        before, until = memory_of(server), time.monotonic() + seconds
        halfway: list[float] = []
        asyncio.get_running_loop().call_later(seconds / 2, lambda: halfway.append(memory_of(server)))
        took = sorted(
            each
            for took in await asyncio.gather(*(person(page, number, until) for number, page in enumerate(pages)))
            for each in took
        )
        after = memory_of(server)
        await browser.close()
    return {
        "people": people,
        "seconds": seconds,
        "searches": len(took),
        "p50_ms": round(statistics.median(took)),
        "p95_ms": round(took[int(0.95 * len(took))]),
        "worst_ms": round(took[-1]),
        "first_page_s": round(usable[0], 2),
        "memory_mb": [round(before), *(round(each) for each in halfway), round(after)],
        "failed": failed,
    }


def main() -> None:
    """Serve the zoo that ships, measure, print one JSON document."""
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
            up = time.monotonic() - began
            found = asyncio.run(measure(address, server.pid, options.people, options.seconds))
            sys.stdout.write(json.dumps({"up_s": round(up, 2)} | found) + "\n")
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
