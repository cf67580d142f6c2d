"""``python -m scripts.film [FILE]``: films the page into docs/film.webp, which README shows.

Index a folder, search it, find its duplicates, read the words of a file: a Chromium does it on the real page, in an
empty home, with LoRAs that ship under the names that people's files have. What takes longer than a person would watch
is shown faster than it was, and the words of base models, which are prepared once, are prepared before.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Locator, Page, sync_playwright
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE
from scripts.screenshots import CHROMIUM_FLAGS, QUERY, home_variables, serve_page

FOLDER: Final = "ComfyUI/models/loras"
SIZE: Final = (1000, 640)
CAPTION_HEIGHT: Final = 44
MAX_BYTES: Final = 2_000_000
FRAME: Final = 120  # milliseconds
HOLD: Final = 1800  # milliseconds
MAX_WAIT: Final = 12  # frames
PATIENCE: Final = 900  # seconds


class Film:
    """Frames of a page, each with a caption and the time for which it is shown."""

    def __init__(self, page: Page) -> None:
        """Film a page."""
        self.page, self.caption = page, ""
        self.frames: list[Image.Image] = []
        self.durations: list[int] = []

    def shoot(self, duration: int = FRAME) -> None:
        """Add what the page shows now; a frame that shows the same as the last one lengthens it."""
        picture = Image.open(BytesIO(self.page.screenshot())).convert("RGB")
        frame = Image.new("RGB", (SIZE[0], SIZE[1] + CAPTION_HEIGHT), "#0f766e")
        frame.paste(picture)
        ImageDraw.Draw(frame).text((20, SIZE[1] + 9), self.caption, "white", ImageFont.load_default(22))
        if self.frames and frame.tobytes() == self.frames[-1].tobytes():
            self.durations[-1] += duration
        else:
            self.frames.append(frame)
            self.durations.append(duration)

    def wait(self, expected: Locator) -> None:
        """Film until something is there, faster than it was: what changed, a frame each, at most MAX_WAIT of them."""
        before, patience = len(self.frames), time() + PATIENCE
        expected = expected.locator("visible=true")
        while not expected.count():
            if time() > patience:
                raise TimeoutError(f"{expected} did not come")
            self.shoot()
            self.page.wait_for_timeout(FRAME)
        waited = range(before, len(self.frames))
        kept = {*range(before), *waited[:: max(1, len(waited) // MAX_WAIT)]}
        self.frames = [frame for number, frame in enumerate(self.frames) if number in kept]
        self.durations = [d if n < before else FRAME for n, d in enumerate(self.durations) if n in kept]

    def hold(self, duration: int = HOLD) -> None:
        """Let the page come to rest, and show it long enough to be read."""
        self.page.wait_for_timeout(700)
        self.shoot(duration)

    def type_text(self, field: Locator, text: str) -> None:
        """Type, three letters a frame."""
        field.click()
        for start in range(0, len(text), 3):
            field.press_sequentially(text[start : start + 3])
            self.shoot()

    def scroll_to(self, place: Locator, margin: int = 20) -> None:
        """Scroll until a place is at the top."""
        box = place.first.bounding_box()
        for _ in range(6 if box else 0):
            self.page.mouse.wheel(0, (box["y"] - margin) / 6 if box else 0)
            self.page.wait_for_timeout(30)
            self.shoot(60)

    def open_tab(self, name: str) -> None:
        """Go to a tab."""
        self.page.get_by_role("tab", name=name).click()
        self.page.mouse.wheel(0, -10_000)
        self.hold(500)

    def save(self, path: Path) -> None:
        """Write an animated WebP that plays for ever."""
        self.frames[0].save(
            path,
            save_all=True,
            append_images=self.frames[1:],
            duration=self.durations,
            loop=0,
            quality=60,
            method=6,
            minimize_size=True,
        )


def show(film: Film, words_of: Path) -> None:
    """The story."""
    page = film.page
    film.caption = "Index a folder: files are read where they are, and never changed"
    film.open_tab("Library")
    film.type_text(page.get_by_label("Folders on the server's machine, one per line"), f"~/{FOLDER}")
    page.get_by_role("button", name="Index", exact=True).click()
    film.wait(page.get_by_text("Done:"))
    film.hold()
    film.caption = "Search by what the weights draw, whatever a file is called"
    film.open_tab("Search")
    film.type_text(page.get_by_label("What should the model draw?"), QUERY)
    page.keyboard.press("Enter")
    film.wait(page.get_by_text("best first"))
    film.hold(600)
    film.scroll_to(page.locator(".ld-card"))
    film.hold()
    film.caption = "Find copies in another precision or strength, and other versions"
    film.open_tab("Library")
    page.get_by_role("button", name="Find duplicates").click()
    film.wait(page.locator(".ld-group"))
    film.scroll_to(page.get_by_role("button", name="Find duplicates"))
    film.hold()
    film.caption = "No expert needed: the words that a file was trained with"
    film.open_tab("Label")
    page.set_input_files("input[type=file]", str(words_of))
    film.wait(page.get_by_text(words_of.stem))
    page.get_by_role("button", name="Label", exact=True).click()
    film.wait(page.get_by_text("trained with"))
    film.scroll_to(page.locator(".ld-file"))
    film.hold(2 * HOLD)


def make_collection(home: Path) -> Path:
    """LoRAs that ship under names that say nothing, with copies of some; returns another, whose words can be read."""
    folder = home / FOLDER
    folder.mkdir(parents=True)
    loras = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))
    loras = [*loras[::4], *MINIATURE.glob("models/mini-a/test/model_idx_1403/*.safetensors")]  # it draws pizza
    for number, lora in enumerate(loras):
        shutil.copy(lora, folder / f"lora-{number:06d}.safetensors")
    first, second = load_file(loras[3]), load_file(loras[8])
    save_file({name: tensor.half() for name, tensor in first.items()}, folder / "final_v2_fp16.safetensors")
    save_file(
        {name: tensor * (0.5 if ".up." in name or "lora_B" in name else 1) for name, tensor in second.items()},
        folder / "final (1).safetensors",
    )
    captioned = sorted((MINIATURE / "captioned/mini-b/trigger").rglob("*.safetensors"))[0]
    shutil.copy(captioned, copy := home / "last_one.safetensors")
    return copy


def prepare_words(home: Path, *files: Path) -> None:
    """Prepare what reading words needs of the base models of files."""
    command = [str(Path(sys.executable).with_name("loradex")), "words", *map(str, files)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | home_variables(home))


@contextmanager
def filmed_page(address: str) -> Iterator[Page]:
    """The page in a browser without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        page.goto(address)
        page.get_by_role("tab", name="Library").wait_for()
        yield page
        browser.close()


def main() -> None:
    """Serve the page from an empty home, film it, and stop the server."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/film.webp")
    with TemporaryDirectory() as temporary:
        words_of = make_collection(Path(temporary))
        prepare_words(Path(temporary), words_of, Path(temporary) / FOLDER / "lora-000000.safetensors")
        with serve_page(Path(temporary)) as address, filmed_page(address) as page:
            film = Film(page)
            show(film, words_of)
        film.save(out)
    size, seconds = out.stat().st_size, sum(film.durations) / 1000
    sys.stdout.write(f"{out}: {len(film.frames)} frames, {seconds:.0f} s, {size:,} bytes\n")
    if size > MAX_BYTES:
        raise SystemExit(f"expected at most {MAX_BYTES:,} bytes; lower the quality or shorten the story")


if __name__ == "__main__":
    main()
