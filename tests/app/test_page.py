"""The page in a real headless Chromium, with no network but loopback."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.places import MINIATURE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; install Debian's chromium"),
]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [Path(sys.executable).with_name("loradex"), "serve", "--port", "0", "--zoo", "miniature"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert "http://127.0.0.1:" in line, line + server.stderr.read()
        yield line.split(" on ")[1].split()[0]
        server.send_signal(signal.SIGINT)
        server.stderr.close()


@pytest.fixture
def page(address: str) -> Iterator[object]:
    """A fresh tab at the page; the test fails on any failed request, any request elsewhere and any error in the console."""
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.on("request", lambda request: None if request.url.startswith((address, "data:", "blob:")) else troubles.append(f"elsewhere: {request.url}"))
        tab.on("response", lambda response: troubles.append(f"{response.status}: {response.url}") if response.status >= 400 else None)
        tab.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: troubles.append(str(error)))
        tab.goto(address)
        tab.get_by_label("What should the model draw?").wait_for()
        yield tab
        browser.close()
    assert troubles == []


def test_searching_shows_what_models_draw(page: object) -> None:
    from playwright.sync_api import Page

    assert isinstance(page, Page)
    page.get_by_label("What should the model draw?").fill("a slice of pizza")
    page.keyboard.press("Enter")
    pictures = page.locator("button.thumbnail-lg img, .grid-container img")
    pictures.first.wait_for()
    assert pictures.count() == 12
    page.wait_for_function("[...document.querySelectorAll('.grid-container img')].every(image => image.complete && image.naturalWidth === 128)")
    assert "mini-" in page.locator(".grid-container").inner_text()


def test_labelling_a_dropped_file(page: object) -> None:
    from playwright.sync_api import Page, expect

    assert isinstance(page, Page)
    page.get_by_role("tab", name="Label").click()
    file = sorted((MINIATURE / "models" / "mini-a").glob("test_holdout/*/*.safetensors"))[0]
    page.set_input_files("input[type=file]", str(file))
    page.get_by_text("pytorch_lora_weights").first.wait_for()
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.get_by_role("gridcell", name="mini-a", exact=True)).to_be_visible()
    expect(page.get_by_role("definition").first).to_have_text(re.compile(r"\d+%"))


def test_an_empty_query_is_answered_in_words(page: object) -> None:
    from playwright.sync_api import Page

    assert isinstance(page, Page)
    page.get_by_role("button", name="Search", exact=True).click()
    page.get_by_text("expected some words").wait_for()
