"""``python -m scripts.screenshots``: writes screenshots of every tab of the page, with the shipped zoo, to docs/.

Needs a Chromium.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import FilePayload, Page, sync_playwright
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE

QUERY = "a slice of pizza"
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LABELLED_LORAS = [
    *sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[2:4],
    *sorted(MINIATURE.glob("models/mini-b/test_holdout/*/*.safetensors"))[:1],
]
CLASSIFIERS = [
    sorted(MINIATURE.glob(f"classifiers/{tree}/test/*/*.safetensors"))[0] for tree in ("mini-vit", "mini-resnet")
]
LIBRARY_LORAS = [
    *sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[:9],
    *sorted(MINIATURE.glob("models/mini-b/test_holdout/*/*.safetensors"))[:5],
]
SETTLE_MS = 1200


def show_search(page: Page) -> None:
    """Search for pizza."""
    page.get_by_label("What should the model draw?").fill(QUERY)
    page.keyboard.press("Enter")
    page.get_by_text("best first").first.wait_for()


def show_label(page: Page) -> None:
    """Label some files and draw with the first."""
    page.get_by_role("tab", name="Label").click()
    page.set_input_files("input[type=file]", [str(path) for path in LABELLED_LORAS])
    page.get_by_text("pytorch_lora_weights").first.wait_for()
    page.get_by_role("button", name="Label", exact=True).click()
    page.locator(".ld-file .ld-act").first.click()
    page.get_by_role("button", name="Draw with this model").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(".ld-pair img").first.wait_for(timeout=60_000)


def show_categories(page: Page) -> None:
    """Predict the categories of two classifiers."""
    page.get_by_role("tab", name="Categories").click()
    names = [f"{path.parts[-4]}-{path.parts[-2].removeprefix('model_idx_')}.safetensors" for path in CLASSIFIERS]
    payloads = [
        FilePayload(name=name, mimeType="application/octet-stream", buffer=path.read_bytes())
        for name, path in zip(names, CLASSIFIERS, strict=True)
    ]
    page.set_input_files("input[type=file]", payloads)
    page.get_by_text("mini-vit").first.wait_for()
    page.get_by_role("button", name="Predict categories").click()
    page.locator(".ld-file .ld-label").first.wait_for()


def show_map(page: Page) -> None:
    """Show the map with one model selected."""
    page.get_by_role("tab", name="Map").click()
    page.get_by_text("300 models", exact=True).wait_for(timeout=60_000)
    page.locator(".ld-plot canvas").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(2 * SETTLE_MS)


def show_library(page: Page, folder: Path) -> None:
    """Index a folder and find duplicates in it."""
    page.get_by_role("tab", name="Library").click()
    page.get_by_label("Folders on the server's machine, one per line").fill(str(folder))
    page.get_by_role("button", name="Index", exact=True).click()
    page.get_by_text("new model").wait_for(timeout=120_000)
    page.get_by_role("button", name="Find duplicates").click()
    page.locator(".ld-group").first.wait_for()


def show_about(page: Page) -> None:
    """Show the measurements."""
    page.get_by_role("tab", name="About").click()
    page.get_by_text("What Loradex can know").wait_for()


TABS: dict[str, Callable[[Page], None]] = {
    "search": show_search,
    "label": show_label,
    "map": show_map,
    "categories": show_categories,
    "about": show_about,
}


def make_lora_folder(parent: Path) -> Path:
    """Make a folder with LoRAs of two model trees, a copy in half precision, and a file that is no LoRA."""
    folder = parent / "loras"
    folder.mkdir()
    for lora in LIBRARY_LORAS:
        shutil.copy(lora, folder / f"{lora.parts[-4]}-{lora.parts[-2]}.safetensors")
    save_file(
        {name: value.half() for name, value in load_file(LIBRARY_LORAS[0]).items()},
        folder / "final_v2_fp16.safetensors",
    )
    (folder / "download.safetensors").write_text("<!doctype html><title>404</title>")
    return folder


def take_screenshots(address: str, out: Path, folder: Path) -> None:
    """Write ``page-<tab>.png`` for each tab, and the search tab as ``page-dark.png`` and ``page-phone.png``."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        tabs: dict[str, Callable[[Page], None]] = {
            **TABS,
            "library": partial(show_library, folder=folder),
        }
        views = [
            ("search", 1280, 860, "dark"),
            ("search", 390, 844, "phone"),
            *((name, 1280, 860, "light") for name in tabs),
        ]
        for name, width, height, style in views:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if style == "dark" else "light"
            )
            page.goto(address)
            page.locator(".ld-card").first.wait_for()
            tabs[name](page)
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=out / f"page-{name if style == 'light' else style}.png")
            page.close()
        browser.close()


def home_variables(home: Path) -> dict[str, str]:
    """Environment of a person with this home."""
    return {name: str(home) for name in ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME")}


@contextmanager
def serve_page(home: Path, *options: str) -> Iterator[str]:
    """Serve the page from an empty home on a free port; yields its address."""
    command = [str(Path(sys.executable).with_name("loradex")), "serve", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | home_variables(home)) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["page"]
        finally:
            server.terminate()


def main() -> None:
    """Serve the page, take the screenshots, and stop the server."""
    with TemporaryDirectory() as temporary, serve_page(Path(temporary), "--zoo", "miniature") as address:
        take_screenshots(address, Path("docs"), make_lora_folder(Path(temporary)))


if __name__ == "__main__":
    main()
