"""The sidebar's pages in a browser. ComfyUI's front end is a stand-in here: two modules with what the pages use."""

import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect, sync_playwright

from loradex.app.comfyui import PACK

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here; install Debian's chromium"),
    pytest.mark.xdist_group("browser"),
]
HOSTILE = "quote \" ' <img src=x onerror=alert(1)> 🍕"
APP = """
class Node {
  constructor(type) { this.type = this.title = type; this.size = [200, 100]; this.mode = 0; this.links = [];
    const widgets = { LoraLoader: ["lora_name", "strength_model", "strength_clip"], CLIPTextEncode: ["text"] }[type] ?? [];
    this.widgets = widgets.map((name) => ({ name, value: null, options: { values: [] } }));
    this.outputs = [{ type: "MODEL" }, { type: "CLIP" }]; this.inputs = [{ type: "CLIP" }]; }
  connect(output, node, input) { this.links.push([output, node.title, input]); }
}
window.LiteGraph = { createNode: (type) => new Node(type) };
const nodes = [];
const graph = { nodes, add: (node) => nodes.push(node), setDirtyCanvas() {} };
const canvas = { ds: { offset: [0, 0], scale: 1 }, canvas: document.createElement("canvas"), selectNode() {}, centerOnNode() {} };
export const app = { graph, canvas, registerExtension: (each) => (window.extension = each),
  extensionManager: { registerSidebarTab: (tab) => (window.tab = tab) } };
window.app = app;
"""
API = """
export const api = { apiURL: (path) => path, fetchApi: (path, options) => fetch(path, options) };
"""
HIT = {
    "id": "a/1", "name": HOSTILE, "has_drawing": False, "family": "sd1", "file": f"sub/{HOSTILE}.safetensors",
    "place": "/x", "probability": 0.97, "trigger_words": [HOSTILE, "two"], "draws": [[HOSTILE, 0.5]],
}  # fmt: skip
ELSEWHERE = {**HIT, "id": "2", "name": "other", "file": None, "trigger_words": [], "draws": [], "probability": None}
STATUS = {"models": 2, "loras": 1, "families": {"sd1": 2}}


@pytest.fixture
def answers() -> dict[str, Any]:
    """What ComfyUI's server answers, by route."""
    page = {"hits": [HIT, ELSEWHERE], "next": 24}
    return {"status": STATUS, "search": page, "family": {"family": "sd1"}, "asked": []}


@pytest.fixture
def page(answers: dict[str, Any]) -> Iterator[Page]:
    def fulfill(route: Route) -> None:
        path = route.request.url.partition("//comfyui")[2]
        name = path.rpartition("/")[2].partition("?")[0]
        if path == "/":
            route.fulfill(body="<div id=side></div>", content_type="text/html")
        elif path.startswith("/scripts/"):
            route.fulfill(body={"app.js": APP, "api.js": API}[name], content_type="text/javascript")
        elif path.startswith("/extensions/"):
            route.fulfill(path=PACK / "web" / name)
        elif name in answers:
            answers["asked"].append(path)
            route.fulfill(json=answers[name])
        else:
            route.fulfill(status=404)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("dialog", lambda dialog: pytest.fail(f"a name ran as code: {dialog.message}"))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        page.route("**/*", fulfill)
        page.goto("http://comfyui/")
        page.evaluate("import('/extensions/loradex/loradex.js').then(() => window.extension.setup())")
        yield page
        browser.close()


def search(page: Page, text: str = "a dog") -> None:
    page.evaluate("window.tab.render(document.getElementById('side'))")
    page.get_by_label("What should it draw?").fill(text)
    page.keyboard.press("Enter")


def test_a_click_puts_a_loader_and_its_words_onto_the_canvas(page: Page, answers: dict[str, Any]) -> None:
    search(page)
    cards = page.locator(".loradex-card")
    expect(cards).to_have_count(2)
    expect(cards.first.locator(".loradex-name")).to_have_text(HOSTILE)
    expect(page.locator("#side img")).to_have_count(0)  # neither a drawing nor one out of a name
    expect(cards.nth(1).get_by_role("button", name="Add", exact=True)).to_be_disabled()
    cards.first.get_by_role("button", name="Add", exact=True).click()
    loader, prompt = page.evaluate("app.graph.nodes.map((n) => [n.title, n.widgets.map((w) => w.value), n.links])")
    assert loader == [f"LoRA: {HOSTILE}", [HIT["file"], 1, 1], [[1, f"Trigger words: {HOSTILE}", 0]]]
    assert prompt[:2] == [f"Trigger words: {HOSTILE}", [f"{HOSTILE}, two"]]
    page.get_by_role("button", name="More").click()
    expect(cards).to_have_count(4)
    page.get_by_role("button", name="Similar").first.click()
    expect(page.get_by_role("status")).to_contain_text(f"like {HOSTILE}")
    asked = [path for path in answers["asked"] if "search" in path]
    assert ["text=a+dog" in path for path in asked] == [True, True, False]
    assert "offset=24" in asked[1] and "model=a%2F1" in asked[2]


def test_the_family_of_the_loaded_checkpoint_is_the_filter(page: Page, answers: dict[str, Any]) -> None:
    page.evaluate("""() => { const node = LiteGraph.createNode("CheckpointLoaderSimple");
        node.widgets = [{ name: "ckpt_name", value: "a b.safetensors" }]; node.pos = [0, 0]; app.graph.add(node); }""")
    search(page)
    expect(page.get_by_role("status")).to_have_text("LoRAs of sd1, best first")
    assert "/loradex/family?folder=checkpoints&name=a+b.safetensors" in answers["asked"]
    page.get_by_label("Family").select_option("")
    expect(page.get_by_role("status")).to_have_text("LoRAs, best first")
    assert [path.partition("&family=")[2] for path in answers["asked"] if "/search" in path] == [
        "sd1&offset=0",
        "&offset=0",
    ]


def test_no_server_says_what_to_do_and_is_asked_again(page: Page, answers: dict[str, Any]) -> None:
    status, error = (
        answers["status"],
        {"kind": "NoServer", "message": "found none <b>", "command": "loradex serve --api"},
    )
    answers["status"] = {"error": error}
    page.evaluate("window.tab.render(document.getElementById('side'))")
    expect(page.get_by_role("status")).to_contain_text("found none <b>")
    expect(page.locator(".loradex-error code")).to_have_text("loradex serve --api")
    answers["status"] = status
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("status")).to_have_text("2 LoRAs indexed, 1 in ComfyUI's folders.")


def test_a_node_lists_its_hits_and_a_click_chooses(page: Page) -> None:
    page.evaluate(
        """(text) => {
        window.node = { comfyClass: "LoradexSearch", widgets: [{ name: "index", value: 1 }],
          addDOMWidget(name, type, element) { document.body.append(element); return {}; } };
        window.extension.nodeCreated(node); node.onExecuted({ loradex: ["1. one", `2. ${text}`] }); }""",
        HOSTILE,
    )
    expect(page.get_by_role("button", name="1. one")).to_have_attribute("aria-pressed", "true")
    page.get_by_text(HOSTILE).click()
    assert page.evaluate("node.widgets[0].value") == 2
    assert json.loads(page.evaluate("JSON.stringify(node.widgets)")) == [{"name": "index", "value": 2}]
