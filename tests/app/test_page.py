"""The page in a real headless Chromium, with no other network than loopback."""

import json
import os
import re
import shutil
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect, sync_playwright
from safetensors.torch import save_file

from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.retrieval.training.labelled_classifiers import read_categories
from tests.app.describe.samples import write_lora
from tests.app.words.captioned import write_captioned
from tests.few_words import LORADEX

STATUS = ".prose.ld-status"
QUERY_LABEL = "What should the model draw?"

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; install Debian's chromium"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = {name: str(tmp_path_factory.mktemp("served")) for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME")}
    command = [*LORADEX, "serve", "--port", "0", "--zoo", "miniature"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | home | {"HF_HUB_OFFLINE": "1"}
    ) as server:
        assert server.stderr is not None
        line = server.stderr.readline()
        assert "http://127.0.0.1:" in line, line + server.stderr.read()
        yield line.split(" on ")[1].split()[0]
        server.send_signal(signal.SIGINT)
        server.stderr.close()


@pytest.fixture
def page(address: str) -> Iterator[Page]:
    """A new tab with the page; the test fails on failed requests, requests to other hosts and console errors."""
    problems: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        tab.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((address, "data:", "blob:"))
                else problems.append(f"other host: {request.url}")
            ),
        )
        tab.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
        tab.on(
            "response",
            lambda response: problems.append(f"{response.status}: {response.url}") if response.status >= 400 else None,
        )
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(address)
        tab.locator(".ld-card").first.wait_for()
        yield tab
        tab.wait_for_timeout(300)
        found = list(problems)
        browser.close()
    assert found == []


def search(page: Page, query: str) -> None:
    before = page.locator(STATUS).inner_text()
    page.get_by_label(QUERY_LABEL).fill(query)
    page.keyboard.press("Enter")
    expect(page.locator(STATUS)).not_to_have_text(before)


def test_a_new_page_shows_some_models_and_searches(page: Page) -> None:
    expect(page.locator(".ld-card")).to_have_count(24)
    search(page, "a slice of pizza")
    expect(page.locator(".ld-card").first).to_contain_text("likely")
    page.wait_for_function(
        "[...document.querySelectorAll('.ld-card img')].every(image => image.complete && image.naturalWidth === 128)"
    )
    expect(page.locator(STATUS)).to_contain_text("best first")
    page.get_by_role("button", name="Show more models").click()
    expect(page.locator(".ld-card")).to_have_count(48)


def test_concepts_models_and_filters_refine_a_search(page: Page) -> None:
    search(page, "pizza")
    page.get_by_role("button", name="Refine").click()
    page.get_by_label("One more concept").fill("cheese")
    page.get_by_role("button", name="− subtract").click()
    expect(page.get_by_label(QUERY_LABEL)).to_have_value("pizza - cheese")
    page.get_by_label("Base model family").click()
    page.get_by_role("option", name="mini-b").click()
    expect(page.locator(".ld-card .ld-chip", has_text="mini-a")).to_have_count(0)
    first = page.locator(".ld-card h3").first.inner_text()
    page.get_by_role("button", name=f"More like {first}").click()
    expect(page.get_by_text(f"like {first}", exact=True)).to_be_visible()
    expect(page.locator(".ld-card h3").first).not_to_have_text(first)
    page.get_by_role("button", name=f"Remove {first} from the query").click()
    expect(page.locator(".ld-card h3").first).to_have_text(first)


def test_an_image_is_searched_by(page: Page) -> None:
    model = next(path for path in sorted((SHIPPED_ZOO / "previews").iterdir()))
    page.get_by_role("button", name="Refine").click()
    page.locator("input[type=file]").first.set_input_files(str(model))
    expect(page.locator(STATUS)).to_contain_text("best first")


def test_a_model_is_opened_compared_and_drawn_with(page: Page) -> None:
    page.locator(".ld-open").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#ld-panel h2")).to_be_visible()
    for number in (0, 1):
        page.locator(".ld-card").nth(number).get_by_role("button", name="side by side").click()
        expect(page.locator(".ld-side > div")).to_have_count(number + 1)
    expect(page.locator(".ld-side")).to_contain_text("cosine with the first")
    page.get_by_role("button", name="Draw with this model").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    expect(page.locator(".ld-pair img")).to_have_count(2, timeout=60_000)


def test_files_are_labelled_and_labels_downloaded(page: Page) -> None:
    page.get_by_role("tab", name="Label").click()
    files = sorted((MINIATURE / "models" / "mini-a").glob("test_holdout/*/*.safetensors"))[:2]
    page.set_input_files("input[type=file]", [str(file) for file in files])
    page.get_by_text("pytorch_lora_weights").first.wait_for()
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.locator(".ld-file")).to_have_count(2)
    expect(page.locator(".ld-file .ld-label").first).to_have_text(re.compile(r"\d+%"))
    expect(page.locator(".ld-file .ld-near img").first).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="labels.csv").click()
    assert len(download.value.path().read_text().splitlines()) == 1 + 2 * 5
    with page.expect_download() as download:
        page.get_by_role("link", name="side-cars.zip").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert len(archive.namelist()) == 2 and "sha256" in json.loads(archive.read(archive.namelist()[0]))


def test_words_are_read_after_labels(page: Page, tmp_path: Path) -> None:
    """A word of one's own is found; the other file's prompt named nothing, or its base model is not there."""
    files = [write_captioned(tmp_path / "kozu.safetensors", "kozu"), write_lora(tmp_path / "sd1.safetensors").path]
    page.get_by_role("tab", name="Label").click()
    page.get_by_role("button", name="Label", exact=True).wait_for()  # the tab's own input is there now
    page.set_input_files("input[type=file]", [str(file) for file in files])
    page.get_by_text("kozu.safe").first.wait_for(timeout=90_000)
    page.get_by_label("Words to look for").fill("tovan\ndog\nkozu\nbrelix\nmirku\nsefalo")
    page.get_by_role("button", name="Label", exact=True).click()
    first, second = page.locator(".ld-file").nth(0), page.locator(".ld-file").nth(1)
    expect(first).to_contain_text("Trained with", timeout=120_000)
    expect(first.locator("h4:has-text('Trained with') ~ .ld-label").first).to_contain_text("kozu")
    expect(second).to_contain_text("loradex base add --find")
    expect(page.locator("#ld-reading p")).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("link", name="words.csv").click()
    assert download.value.path().read_text().splitlines()[1].startswith("kozu.safetensors,mini-b,kozu,")
    page.get_by_label("Words to look for").fill("x" * 301)
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.locator("#ld-reading")).to_contain_text("characters each, found 301", timeout=60_000)
    expect(first).to_contain_text("found mini-b")  # what is said of labels is there all the same


def test_the_map_opens_models(page: Page) -> None:
    page.get_by_role("tab", name="Map").click()
    expect(page.locator(".ld-said")).to_have_text("300 models", timeout=60_000)
    page.get_by_label("Find on the map").fill("mini-b")
    expect(page.locator(".ld-said")).to_have_text("99 of 300 models")
    page.locator(".ld-plot canvas").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".ld-tip img")).to_be_visible()
    name = page.locator(".ld-tip p").first.inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#ld-panel h2")).to_have_text(name)


def test_a_folder_is_indexed_and_its_result_is_shown(page: Page, tmp_path: Path) -> None:
    shipped = sorted((MINIATURE / "models" / "mini-a").glob("test_holdout/*/*.safetensors"))
    shutil.copy(shipped[0], tmp_path / "one.safetensors")
    shutil.copy(shipped[0], tmp_path / "the same.safetensors")
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    save_file(
        {f"{layer}.lora_down.weight": torch.ones(4, 320), f"{layer}.lora_up.weight": torch.ones(320, 4)},
        tmp_path / "other family.safetensors",
    )
    (tmp_path / "broken.safetensors").write_bytes(b"no file")
    page.get_by_role("tab", name="Library").click()
    page.get_by_label("Folders on the server's machine").fill(str(tmp_path))
    page.get_by_role("button", name="Index", exact=True).click()
    run = page.locator("#ld-run")
    expect(run).to_contain_text("2 files known by what they draw, read from their weights", timeout=60_000)
    expect(run).to_contain_text("1 file known by name or tags only")
    expect(run).to_contain_text("No expert reads sd1 (1)")
    expect(run.locator("[data-copy='loradex grow sd1']")).to_be_visible()
    expect(run).to_contain_text("1 file refused")
    expect(run).to_contain_text("broken.safetensors")
    expect(run).to_contain_text("Done:", timeout=60_000)
    page.get_by_role("button", name="Find duplicates").click()
    expect(page.locator("#ld-found")).to_contain_text("1 group with the same update")
    page.get_by_role("button", name="Check the zoo").click()
    expect(page.locator("#ld-found")).to_contain_text("No problems found")
    page.get_by_role("tab", name="Search").click()
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".ld-card img").first).to_be_visible()  # drawn while indexing, as its base model ships


def test_about_and_library_say_whose_words_can_be_read(page: Page) -> None:
    for tab in ("Library", "About"):
        page.get_by_role("tab", name=tab).click()
        line = page.get_by_text("Words can be read from the weights of LoRAs of mini-a, mini-b").locator("visible=true")
        expect(line).to_contain_text(re.compile("No base model is known for .*sdxl.*: loradex base add PATH"))


def test_about_shows_metrics(page: Page) -> None:
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#ld-figures")).to_contain_text("label: top 1 of held-out concepts")
    expect(page.get_by_text("What it cannot know")).to_be_visible()


def test_categories_of_shipped_classifiers_are_predicted(page: Page, tmp_path: Path) -> None:
    """Most sure categories stand in the header of a model of each tree; a LoRA is refused with the command for it."""
    files = [
        sorted((MINIATURE / "classifiers" / tree).rglob("*.safetensors"))[0] for tree in ("mini-vit", "mini-resnet")
    ]
    for number, path in enumerate([*files, next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))]):
        shutil.copy(path, tmp_path / f"model-{number}.safetensors")
    page.get_by_role("tab", name="Categories").click()
    page.set_input_files("input[type=file]", sorted(map(str, tmp_path.glob("*.safetensors"))))
    page.get_by_text("model-2").first.wait_for()
    page.get_by_role("button", name="Predict categories").click()
    cards = page.locator(".ld-file")
    expect(cards).to_have_count(3)
    for card, path in zip(cards.all(), files, strict=False):
        truth = read_categories(path) or ()
        sure = card.locator(".ld-chip.own").all_inner_texts()
        assert len(sure) > 10 and sum(name in truth for name in sure) > 0.8 * len(sure)
    expect(cards.nth(0)).to_contain_text("mini-vit")
    expect(cards.nth(1)).to_contain_text("mini-resnet")
    expect(cards.nth(2)).to_contain_text("ask `loradex label`")
