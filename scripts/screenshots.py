"""``python -m scripts.screenshots``: pictures of every tab over the zoo that ships, for docs/ and the README (needs a Chromium)."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import FilePayload, Page, sync_playwright
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE

QUERY = "a slice of pizza"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LORAS = [
    *sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[2:4],
    *sorted(MINIATURE.glob("models/mini-b/test_holdout/*/*.safetensors"))[:1],
]
CLASSIFIERS = [
    sorted(MINIATURE.glob(f"classifiers/{tree}/test/*/*.safetensors"))[0] for tree in ("mini-vit", "mini-resnet")
]
LIBRARY = [
    *sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))[:9],
    *sorted(MINIATURE.glob("models/mini-b/test_holdout/*/*.safetensors"))[:5],
]
SETTLE = 1200  # milliseconds


def search(page: Page) -> None:
    """Ask for pizza, and open the first model."""
    page.get_by_label("What should the model draw?").fill(QUERY)
    page.keyboard.press("Enter")
    page.get_by_text("best first").first.wait_for()


def label(page: Page) -> None:
    """Label some files, and draw one."""
    page.get_by_role("tab", name="Label").click()
    page.set_input_files("input[type=file]", [str(path) for path in LORAS])
    page.get_by_text("pytorch_lora_weights").first.wait_for()
    page.get_by_role("button", name="Label", exact=True).click()
    page.locator(".ld-file .ld-act").first.click()
    page.get_by_role("button", name="Draw what it does").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator(".ld-pair img").first.wait_for(timeout=60_000)


def categories(page: Page) -> None:
    """Tell what two classifiers were trained on."""
    page.get_by_role("tab", name="Categories").click()
    names = [f"{path.parts[-4]}-{path.parts[-2].removeprefix('model_idx_')}.safetensors" for path in CLASSIFIERS]
    sent = [
        FilePayload(name=name, mimeType="application/octet-stream", buffer=path.read_bytes())
        for name, path in zip(names, CLASSIFIERS, strict=True)
    ]
    page.set_input_files("input[type=file]", sent)
    page.get_by_text("mini-vit").first.wait_for()
    page.get_by_role("button", name="Tell categories").click()
    page.locator(".ld-file .ld-label").first.wait_for()


def look_at_map(page: Page) -> None:
    """The map, with one model under the pointer."""
    page.get_by_role("tab", name="Map").click()
    page.get_by_text("300 models", exact=True).wait_for(timeout=60_000)
    page.locator(".ld-plot canvas").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(2 * SETTLE)


def library(page: Page, folder: Path) -> None:
    """Index a folder, and look for duplicates in it."""
    page.get_by_role("tab", name="Library").click()
    page.get_by_label("Folders on the server's machine, one a line").fill(str(folder))
    page.get_by_role("button", name="Index", exact=True).click()
    page.get_by_text("new model").wait_for(timeout=120_000)
    page.get_by_role("button", name="Find duplicates").click()
    page.locator(".ld-group").first.wait_for()


def about(page: Page) -> None:
    """What was measured."""
    page.get_by_role("tab", name="About").click()
    page.get_by_text("What Loradex can know").wait_for()


SHOTS: dict[str, Callable[[Page], None]] = {
    "search": search,
    "label": label,
    "map": look_at_map,
    "categories": categories,
    "about": about,
}


def folder_of_loras(place: Path) -> Path:
    """A folder as people have them: two trees, one file saved twice, and one that is none."""
    folder = place / "loras"
    folder.mkdir()
    for lora in LIBRARY:
        shutil.copy(lora, folder / f"{lora.parts[-4]}-{lora.parts[-2]}.safetensors")
    save_file(
        {name: value.half() for name, value in load_file(LIBRARY[0]).items()}, folder / "final_v2_fp16.safetensors"
    )
    (folder / "download.safetensors").write_text("<!doctype html><title>404</title>")
    return folder


def take(address: str, docs: Path, folder: Path) -> None:
    """Write ``page-<tab>.png`` for each tab in light, and search in dark and on a phone."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        shots: dict[str, Callable[[Page], None]] = {
            **SHOTS,
            "library": partial(library, folder=folder),
        }
        looks = [
            ("search", 1280, 860, "dark"),
            ("search", 390, 844, "phone"),
            *((name, 1280, 860, "light") for name in shots),
        ]
        for name, width, height, look in looks:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if look == "dark" else "light"
            )
            page.goto(address)
            page.locator(".ld-card").first.wait_for()
            shots[name](page)
            page.wait_for_timeout(SETTLE)
            page.screenshot(path=docs / f"page-{name if look == 'light' else look}.png")
            page.close()
        browser.close()


def main() -> None:
    """Serve the page, picture it, stop."""
    command = [str(Path(sys.executable).with_name("loradex")), "serve", "--zoo", "miniature", "--port", "0", "--json"]
    with TemporaryDirectory() as place:
        home = {"XDG_DATA_HOME": place, "XDG_CACHE_HOME": place}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | home) as server:
            try:
                assert server.stdout is not None
                take(json.loads(server.stdout.readline())["page"], Path("docs"), folder_of_loras(Path(place)))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
