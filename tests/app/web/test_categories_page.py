"""The tab of categories, in a real Chromium: there where an expert is at hand, and it tells, or refuses in words."""

from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.app.test_page import CHROMIUM, FLAGS
from tests.app.web.serving import SHIPPED, serving
from tests.whole_models import study_of, write_encoder, write_models

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; install Debian's chromium"),
]


def test_categories_are_told_on_the_page(tmp_path: Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    members = write_models(models)
    write_encoder(tmp_path / "loradex" / "encoder", models)
    study = study_of(models)
    file = sorted((models / "test").rglob("*.safetensors"))[0]
    own = [name for name, there in zip(study.names, members[study.rows("test")][0].tolist(), strict=True) if there]
    troubles: list[str] = []
    with serving(tmp_path) as server, sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS).new_page(
            viewport={"width": 1280, "height": 900}
        )
        page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
        page.on(
            "response",
            lambda response: troubles.append(f"{response.status}: {response.url}") if response.status >= 400 else None,
        )
        page.goto(server.address)
        page.get_by_role("tab", name="Categories").click()
        go = page.get_by_role("button", name="Tell categories")
        expect(go).to_be_visible(timeout=30_000)
        panel = page.get_by_role("tabpanel").filter(has=go)
        panel.locator("input[type=file]").set_input_files([str(file), str(SHIPPED)])
        panel.get_by_text(SHIPPED.stem).locator("visible=true").first.wait_for()
        go.click()
        cards = panel.locator(".ld-file")
        expect(cards).to_have_count(2, timeout=30_000)
        told = set(
            cards.first.locator(".ld-label span, .ld-chip.own").evaluate_all("all => all.map(each => each.textContent)")
        )
        assert set(own) <= told and len(told & set(study.names)) <= len(own) + 1
        expect(cards.nth(1)).to_contain_text("which draws; ask")
        assert troubles == [], server.log.read_text()[-3000:]
