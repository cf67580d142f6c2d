"""The page in a real Chromium, with attacks in names and metadata of models: shown as text, never executed."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.app.test_page import CHROMIUM, FLAGS, QUERY_LABEL
from tests.app.web.hostile_zoo import CONCEPT, IMAGE, NAMES, SCRIPT, TWINS, shown, write_files
from tests.app.web.live_server import Server, serving

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; install Debian's chromium"),
]
ATTACKS = "img[src=x], script:not([src]):text('hacked'), [onerror], [onfocus], a[href^='javascript'], bdi strong, bdi code, bdi i, bdi b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("loras"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server
    assert server.process.returncode in (0, 130) and list(server.temporary.glob("loradex-*")) == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def page(server: Server, browser: Browser) -> Iterator[Page]:
    """A new tab; the test fails on executed code, markup from names, requests to other hosts and console errors."""
    problems: list[str] = []
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.on(
        "request",
        lambda request: (
            None if request.url.startswith((server.address, "data:", "blob:")) else problems.append(request.url)
        ),
    )
    tab.on(
        "response",
        lambda response: problems.append(f"{response.status}: {response.url}") if response.status >= 400 else None,
    )
    tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("dialog", lambda dialog: problems.append(dialog.message))
    tab.goto(server.address)
    tab.locator(".ld-card").first.wait_for()
    yield tab
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.hacked") is None and tab.locator(ATTACKS).count() == 0 and problems == []
    tab.close()


def texts(locator: Locator) -> list[str]:
    """The text of each element, character by character."""
    return [text or "" for text in locator.evaluate_all("all => all.map(each => each.textContent)")]


def test_library_names_files_and_folders_as_they_are(page: Page, folder: Path) -> None:
    """Runs first, as it fills the zoo for the other tests."""
    page.get_by_role("tab", name="Library").click()
    page.get_by_label("Folders on the server's machine").fill(f"{folder}/none {SCRIPT}")
    page.get_by_role("button", name="Index", exact=True).click()
    run, report = page.locator("#ld-run"), page.locator("#ld-found")
    expect(run).to_contain_text(f"none {SCRIPT}")
    page.get_by_label("Folders on the server's machine").fill(str(folder))
    page.get_by_role("button", name="Index", exact=True).click()
    expect(run).to_contain_text("Done:", timeout=60_000)
    assert {shown(f"{name}.safetensors", 400) for name in NAMES} <= set(texts(run.locator("td")))
    expect(run).to_contain_text(f"{IMAGE} broken.safetensors")
    page.get_by_role("button", name="Find duplicates").click()
    expect(report.locator("h3")).to_have_count(2, timeout=30_000)
    assert set(texts(report.locator("h3"))) == set(TWINS)
    page.get_by_role("button", name="List indexed folders").click()
    expect(report).to_contain_text(str(folder))


def test_gallery_panel_and_comparison_show_names_as_they_are(page: Page) -> None:
    names = texts(page.locator(".ld-card h3"))
    assert {shown(name) for name in NAMES} <= set(names)
    card = page.locator(".ld-card").filter(has_text=NAMES[3])
    assert SCRIPT in texts(card.locator(".ld-chip"))
    card.locator(".ld-open").click()
    panel = page.locator("#ld-panel")
    expect(panel.locator("h2")).to_have_text(NAMES[3])
    assert {SCRIPT, IMAGE} <= set(texts(panel.locator("td")))
    for number, name in enumerate(NAMES[:3], 1):
        page.locator(".ld-card").nth(names.index(name)).get_by_role("button", name="side by side").click()
        expect(page.locator(".ld-side > div")).to_have_count(number)
    assert texts(page.locator(".ld-side h3")) == [shown(name) for name in NAMES[:3]]
    card.get_by_role("button", name="More like").click()
    expect(page.locator(".ld-chip.own")).to_contain_text("like {{7*7}}")


def test_queries_and_errors_are_shown_as_they_are(page: Page, server: Server) -> None:
    page.goto(f"{server.address}/?q={IMAGE}")
    expect(page.get_by_label(QUERY_LABEL)).to_have_value(IMAGE)
    expect(page.locator(".ld-card h3").first).to_be_visible()
    page.get_by_role("button", name="Refine").click()
    page.wait_for_timeout(500)  # until Gradio listens to the new inputs
    page.get_by_label("Rank").fill(SCRIPT)
    page.get_by_label("Rank").press("Enter")
    expect(page.locator("#ld-results .ld-warn")).to_contain_text(f"found '{SCRIPT}'")


def test_map_shows_names_as_they_are(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Map").click()
    expect(page.locator(".ld-said")).to_contain_text("models", timeout=60_000)
    for name in NAMES[1:6]:  # the first is contained in others
        page.get_by_label("Find on the map").fill(name[:80])
        page.locator(".ld-plot canvas").focus()
        for key in (
            "Escape",
            "ArrowRight",
            "ArrowRight",
            "ArrowLeft",
            "ArrowUp",
            "ArrowDown",
        ):  # to the first model, then to the one that is found
            page.keyboard.press(key)
        assert texts(page.locator(".ld-tip p"))[:2] == [name, CONCEPT]
    page.get_by_label("Colour by").select_option("folders")
    assert texts(page.locator(".ld-legend button"))[0] == f"{folder.parent.name}/{IMAGE}"[:40]


def test_label_shows_names_as_they_are(page: Page, folder: Path) -> None:
    page.get_by_role("tab", name="Label").click()
    page.set_input_files(
        "input[type=file]", [str(folder / f"{IMAGE}{more}.safetensors") for more in ("", " of sd1", " broken")]
    )
    page.get_by_text("of sd1").locator("visible=true").first.wait_for()
    page.get_by_label("Your labels").fill(f"{SCRIPT}\n{IMAGE}\na dog")
    page.get_by_role("button", name="Label", exact=True).click()
    expect(page.locator(".ld-file")).to_have_count(3, timeout=30_000)
    assert {SCRIPT, IMAGE, "a dog"} == set(texts(page.locator(".ld-file .ld-label span")))
    bare = IMAGE.strip("<>")  # Gradio removes some characters of names
    assert texts(page.locator(".ld-file h3")) == [f"{bare}{more}.safetensors" for more in ("", " of sd1", " broken")]
    assert SCRIPT in texts(page.locator(".ld-file td bdi"))
    page.locator(".ld-file").first.get_by_role("button", name="Draw with").click()
    expect(page.locator("#ld-panel h2")).to_have_text(f"{bare}.safetensors")
