"""LoRA files with attacks on the page in their names and metadata."""

import json
import shutil
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from tests.app.describe.samples import write_lora

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))
IMAGE = "<img src=x onerror=window.hacked=1>"
SCRIPT = '"><script>window.hacked=1</script>'
CONCEPT = "<b>{{1+1}}</b>"
NAMES = (
    IMAGE,
    '"><script>window.hacked=1<',  # without a slash, as in a file name
    "' autofocus onfocus=window.hacked=1 x='",
    "{{7*7}}{{constructor.constructor('window.hacked=1')()}}",
    "${1+1}${window.hacked=1}",
    "[x](javascript:window.hacked=1) **bold** `code` $\\frac{1}{2}$",
    "\x1b]0;hacked\x07\x1b[31mred",
    "\u202egnp.exe & &lt;i&gt; &#60;b&#62;",
    "=HYPERLINK(1) @SUM -1+1",
    "x" * 200,
)
TWINS = (f"one {IMAGE}", f"other {IMAGE}")


def shown(name: str, max_length: int = 80) -> str:
    """A name as the page shows it."""
    text = "".join(c if c.isprintable() else " " for c in name)
    return text[: max_length - 1] + "…" if len(text) > max_length else text


def write_files(folder: Path) -> Path:
    """Write files to a folder with such a name: read by weights or by metadata only, duplicates, and broken."""
    folder /= IMAGE
    folder.mkdir(parents=True)
    previews = sorted((SHIPPED_ZOO / "previews").iterdir())
    for number, name in enumerate(NAMES):
        write_model(folder / f"{name}.safetensors", SHIPPED[number])
        shutil.copy(previews[number], folder / f"{name}.png")
    for name in TWINS:
        write_model(folder / f"{name}.safetensors", SHIPPED[len(NAMES)])
    write_lora(folder / f"{IMAGE} of sd1.safetensors", modelspec__title=SCRIPT)
    (folder / f"{IMAGE} broken.safetensors").write_bytes(b"x")
    return folder


def write_model(path: Path, source: Path) -> None:
    """Copy a model of the miniature, with hostile metadata."""
    tags = {IMAGE: {SCRIPT: 9, "{{7*7}}": 8, "javascript:window.hacked=1": 7}}
    metadata = {
        "modelspec.title": SCRIPT,
        "modelspec.trigger_phrase": IMAGE,
        "modelspec.description": SCRIPT * 20,
        "ss_tag_frequency": json.dumps(tags),
    }
    with safe_open(source, "pt") as opened:
        kept = {"format": "pt", "base_model": opened.metadata()["base_model"], "class_name": CONCEPT}
        save_file({name: opened.get_tensor(name) for name in opened.keys()}, path, kept | metadata)  # noqa: SIM118
