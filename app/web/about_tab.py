"""About: what the weights can tell, how well that was measured, and whose work it rests on."""

from importlib.metadata import version
from typing import Final

import gradio as gr
import numpy as np

from loradex.app.backend import Desk
from loradex.app.experts.expert_metrics import Measured, measured_of
from loradex.app.web.cards import QUIET, html, notice, table, text

TEXT: Final = """
### What Loradex can know
- **What a LoRA draws**, where an expert was trained for its base model: its weights are mapped into the space of words and pictures,
  whatever the file is called.
- **What a classifier was trained on**, where an expert was made for its model tree: which categories, each with a probability.
- **Which LoRAs hold the same update**, or were made from one another, for every family, with no expert.
- **Facts**: format, family of the base model, ranks, scale, trainer and trigger words, from the file's header and the notes beside it.

### What it cannot know
- What a LoRA of **another base model** draws, until an expert is trained for that. Such files are found by their names and tags, and
  this is said on each card.
- What the **training prompt named already**: a base model that could draw it before leaves little to read in the weights.
- Whether a picture is **good**, or a model safe, licensed, or true to what its author claims.
- A probability is calibrated over the labels that were offered; “unknown” means that none of them was likelier than one half.

### Privacy
Nothing leaves this machine: no telemetry, no fonts or scripts from elsewhere. Files that are sent here are kept for 15 minutes at the
most, and nothing in them is run.

### Licences
Loradex is under the Apache License 2.0. The miniature was trained on drawings of Noto Emoji and FxEmojis (Apache 2.0), Twemoji and
EmojiTwo (CC BY 4.0) and Fluent Emoji (MIT); names come from emojibase (MIT), words from emojilib (MIT) and WordNet 3.0. The file NOTICE
has the full texts. The method begins with ProbeX (Horwitz et al., CVPR 2025) and MVProbe (ICML 2026).
"""


NAMES: Final = {
    "zero_shot_top1_heldout": "label: top 1 of held-out concepts",
    "zero_shot_top5_heldout": "label: top 5 of held-out concepts",
    "zero_shot_top1_all": "label: top 1 of all concepts",
    "text_to_model_recall_at_1": "search: recall@1",
    "text_to_model_recall_at_10": "search: recall@10",
    "text_to_model_map": "search: mean average precision",
    "in_distribution_top1": "label: top 1, new LoRAs of seen concepts",
    "answered": "labels that are no “unknown”",
    "right_when_answered": "right, of those",
    "calibration_error": "calibration error of probabilities",
    "accuracy_per_category": "categories told rightly",
    "category_to_model_auroc": "search: models that know a category before those that do not",
}


def build(desk: Desk, page: gr.Blocks) -> None:
    """The tab."""
    figures = html(elem_id="ld-figures")
    gr.Markdown(TEXT)
    page.load(lambda: figures_view(desk), None, figures, **QUIET)


def figures_view(desk: Desk) -> str:
    """The experts that are loaded, and what was measured of each."""
    encoder = desk.loradex.encoder
    parts = [
        f"<h2>Loradex {text(version('loradex'))}</h2>",
        table([("space", text(encoder.space.name)), ("text encoder", text(encoder.space.text_encoder))]),
    ]
    for file, expert in zip(encoder.files[1:], (*encoder.experts.values(), *encoder.categories.values()), strict=True):
        found, tells = measured_of(file), "" if expert.tree in encoder.experts else ", which tells categories"
        parts.append(
            f"<h4>Expert of {text(expert.tree)} (family {text(expert.family)}, {len(expert.layers)} layers){tells}</h4>"
        )
        parts.append(measured_table(found) if found else notice("No figures lie beside this expert."))
    return "".join(parts)


def measured_table(found: Measured) -> str:
    """Metrics in per cent with their 95 % intervals, n and chance."""
    rows = []
    for name, metric in found.metrics.items():
        low, high = metric.get("low", np.nan), metric.get("high", np.nan)
        interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if low <= metric["value"] <= high else ""
        chance = f", chance {100 * metric['chance']:.1f}" if metric.get("chance") else ""
        rows.append(
            (
                NAMES.get(name, name.replace("_", " ")),
                f"<b>{100 * metric['value']:.1f}</b>{interval} % (n = {metric['n']:.0f}{chance})",
            )
        )
    return f'<p class="ld-why">{text(found.on, 300)}</p>{table(rows)}'
