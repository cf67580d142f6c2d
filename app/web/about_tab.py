"""The About tab: what can be read from weights, how well it works, and whose work it is built on."""

from importlib.metadata import version
from typing import Final

import gradio as gr
import numpy as np

from loradex.app.backend import Backend
from loradex.app.experts.expert_metrics import CLAIMED, ExpertMetrics, load_metrics
from loradex.app.web.base_models import render_families
from loradex.app.web.elements import EVENT_OPTIONS, escape_text, html_view, notice, table
from loradex.app.web.waiting import render_waiting
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.probex.expert import Expert

TEXT: Final = """
### What Loradex can know
- **What a LoRA draws**, if there is an expert for its base model: a small model that maps the weights of LoRAs to vectors in the
  space of CLIP, where texts and images have vectors as well. The name of the file does not matter.
- **Which words a LoRA was trained with**: the trigger word and other words of its training prompts (captions), read from the layers
  that attend to the prompt. This needs no expert, but the text encoder of the base model, which has to be on the server's disk. Each
  word has a probability, and “no words to be read” is an answer: some LoRAs were trained with prompts that name nothing.
- **What a classifier was trained on**, if there is an expert for its base model: categories, each with a probability.
- **Which LoRAs hold the same update** (the change to the base model), or were made from one another. This works for every family
  (architecture of the base model) and needs no expert.
- **Facts**: format, family, ranks, scale, trainer and noted trigger words, from the file's header and from JSON files beside it.

### What it cannot know
- What a LoRA of **another base model** draws, until there is an expert for it: `loradex expert add PLACE` adds one that somebody
  shares, `loradex grow FAMILY` grows one from the base model alone. Until then such files are found by their words, previews, names
  and tags, and their cards say so.
- What a LoRA **draws whose training prompt named it**, by an expert: if the base model could draw it before, the layers that an
  expert reads changed little. The words of the prompt stand in other layers, and are read there.
- Whether an image is **good**, or whether a model is safe, licensed, or what its author claims.
- Probabilities are calibrated over the labels that were offered. “unknown” means that no label had a
  probability above one half.

### Privacy
Nothing leaves this machine: no telemetry, no fonts or scripts from other hosts. Uploaded files are deleted after 15 minutes, and
nothing in them is executed.

### Licences
Loradex is under the Apache License 2.0. The miniature was trained on drawings of Noto Emoji and FxEmojis (Apache 2.0), Twemoji and
EmojiTwo (CC BY 4.0) and Fluent Emoji (MIT); names come from emojibase (MIT), words from emojilib (MIT) and WordNet 3.0. The file
NOTICE has the full texts. The method builds on ProbeX (Horwitz et al., CVPR 2025) and MVProbe (ICML 2026).
"""

CLAIM: Final = (
    "These figures are the expert’s own claim: whoever made it measured them. "
    "Run “loradex evaluate FOLDER” on labelled LoRAs to measure it here."
)
METRIC_NAMES: Final = {
    "zero_shot_top1_heldout": "label: top 1 of held-out concepts",
    "zero_shot_top5_heldout": "label: top 5 of held-out concepts",
    "zero_shot_top1_all": "label: top 1 of all concepts",
    "text_to_model_recall_at_1": "search: recall@1",
    "text_to_model_recall_at_10": "search: recall@10",
    "text_to_model_map": "search: mean average precision",
    "in_distribution_top1": "label: top 1, new LoRAs of training concepts",
    "answered": "labels that are not “unknown”",
    "right_when_answered": "of those, correct",
    "calibration_error": "calibration error of probabilities",
    "accuracy_per_category": "categories predicted correctly",
    "category_to_model_auroc": "search: AUROC of models with a category before those without",
}


def build(backend: Backend, page: gr.Blocks) -> None:
    """Build the tab."""
    metrics, families = html_view(elem_id="ld-figures"), html_view(elem_id="ld-families")
    waiting = html_view()
    gr.Markdown(TEXT)
    page.load(lambda: render_waiting(backend), None, waiting, **EVENT_OPTIONS)
    page.load(lambda: render_words(backend), None, families, **EVENT_OPTIONS)
    page.load(lambda: render_experts(backend.loradex.encoder), None, metrics, **EVENT_OPTIONS)


def render_experts(encoder: Encoder) -> str:
    """The version, the space, and each loaded expert with its metrics."""
    parts = [
        f"<h2>Loradex {escape_text(version('loradex'))}</h2>",
        table(
            [
                ("text-image space", escape_text(encoder.space.name)),
                ("text encoder", escape_text(encoder.space.text_encoder)),
            ]
        ),
    ]
    experts = (*encoder.experts.values(), *encoder.categories.values())
    for file, expert in zip(encoder.files[1:], experts, strict=True):
        metrics = load_metrics(file)
        task = "" if expert.tree in encoder.experts else ", predicts categories"
        parts.append(
            f"<h4>Expert for {escape_text(expert.tree)} (family {escape_text(expert.family)}, {len(expert.layers)} layers){task}</h4>"
        )
        if isinstance(expert, Expert) and (made := expert.provenance):
            parts.append(f'<p class="ld-why">{escape_text(made.in_words, 300)}</p>')
        parts.append(metrics_table(metrics) if metrics else notice("There are no metrics beside this expert."))
    return "".join(parts)


def render_words(backend: Backend) -> str:
    """Of which families words can be read."""
    return f"<h4>Words of training prompts, read with the text encoders of base models</h4>{render_families(backend)}"


def metrics_table(metrics: ExpertMetrics) -> str:
    """Metrics in per cent, each with its 95 % interval, n and chance level, and whether they are only claimed."""
    rows = []
    for name, metric in metrics.metrics.items():
        low, high = metric.get("low", np.nan), metric.get("high", np.nan)
        interval = f" [{100 * low:.1f}, {100 * high:.1f}]" if low <= metric["value"] <= high else ""
        chance = f", chance {100 * metric['chance']:.1f}" if metric.get("chance") else ""
        value = f"<b>{100 * metric['value']:.1f}</b>{interval} % (n = {metric['n']:.0f}{chance})"
        rows.append((METRIC_NAMES.get(name, name.replace("_", " ")), value))
    claim = notice(CLAIM) if metrics.measured_by == CLAIMED else ""
    return f'{claim}<p class="ld-why">{escape_text(metrics.on, 300)}</p>{table(rows)}'
