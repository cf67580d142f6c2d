"""The Categories tab in a real Chromium: shown if there is an expert; it predicts categories, or says why it cannot."""

from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.app.test_page import CHROMIUM, FLAGS
from tests.app.web.live_server import SHIPPED, serving
from tests.tiny_classifiers import load_classifiers, write_classifiers, write_encoder

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; install Debian's chromium"),
]


def test_categories_are_predicted_on_the_page(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    members = write_classifiers(models)
    write_encoder(tmp_path / "loradex" / "encoder", models)
    study = load_classifiers(models)
    file = sorted((models / "test").rglob("*.safetensors"))[0]
    truth = [name for name, member in zip(study.names, members[study.rows("test")][0].tolist(), strict=True) if member]
    problems: list[str] = []
    with serving(tmp_path) as server, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page(
            viewport={"width": 1280, "height": 900}
        )
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on(
            "response",
            lambda response: problems.append(f"{response.status}: {response.url}") if response.status >= 400 else None,
        )
        page.goto(server.address)
        page.get_by_role("tab", name="Categories").click()
        button = page.get_by_role("button", name="Predict categories")
        expect(button).to_be_visible(timeout=30_000)
        panel = page.get_by_role("tabpanel").filter(has=button)
        panel.locator("input[type=file]").set_input_files([str(file), str(SHIPPED)])
        panel.get_by_text(SHIPPED.stem).locator("visible=true").first.wait_for()
        button.click()
        cards = panel.locator(".ld-file")
        expect(cards).to_have_count(2, timeout=30_000)
        shown = set(
            cards.first.locator(".ld-label span, .ld-chip.own").evaluate_all("all => all.map(each => each.textContent)")
        )
        assert set(truth) <= shown and len(shown & set(study.names)) <= len(truth) + 1
        expect(cards.nth(1)).to_contain_text("which draws; ask")
        assert problems == [], server.log.read_text()[-3000:]
