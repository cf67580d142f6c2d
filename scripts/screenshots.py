"""``python -m scripts.screenshots``: pictures of the page over the zoo that ships, for the README (needs a Chromium)."""

import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from app.places import MINIATURE

QUERY = "a slice of pizza"
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]


def take(address: str, docs: Path) -> None:
    """Write ``page-search.png`` and ``page-label.png``."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 780})
        page.goto(address)
        page.get_by_label("What should the model draw?").fill(QUERY)
        page.keyboard.press("Enter")
        page.locator(".grid-container img").first.wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=docs / "page-search.png")
        page.get_by_role("tab", name="Label").click()
        page.set_input_files("input[type=file]", [str(path) for path in sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[:3]])
        page.get_by_role("button", name="Label", exact=True).click()
        page.get_by_text("%").first.wait_for()
        page.wait_for_timeout(1000)
        page.screenshot(path=docs / "page-label.png")
        browser.close()


def main() -> None:
    """Serve the page, picture it, stop."""
    command = [str(Path(sys.executable).with_name("loradex")), "serve", "--zoo", "miniature", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            take(server.stderr.readline().split(" on ")[1].split()[0], Path("docs"))
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
