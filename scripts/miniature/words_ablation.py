"""Step ``ablation-words``: what matters when words are read, on validation concepts (fleets ``captions-bv`` and ``b``).

Each variant changes one thing. LoRAs with captions are read among 828 labels, 4,000 English words, 1,250 words that
mean nothing and all words of the fleet; those without are of fleet ``b``, whose prompt is "an icon".
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from loradex.app.bases import Bases
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.metrics import auroc
from loradex.retrieval.measure.nonsense import nonsense_words
from loradex.retrieval.text_states import PromptEncoder
from loradex.retrieval.words import likelihood
from loradex.retrieval.words.captions import compare_openings, grow_caption
from loradex.retrieval.words.cross_attention import read_keys_and_values
from loradex.retrieval.words.english import english_words
from loradex.retrieval.words.likelihood import CommonStates
from loradex.retrieval.words.prompts import (
    NAMES_NOTHING,
    NOTHING,
    Candidates,
    make_candidates,
    make_templates,
    prompt_states,
)
from loradex.retrieval.words.reader import COMPARED, TEMPERATURE
from scripts.miniature.settings import SEED, Build, atomic, log

MOST: Final = 30  # LoRAs of each kind
TOP: Final = 10

Lora = tuple[dict[str, Any], list[Tensor]]  # its recipe, and the row spaces of its keys and values, in turn


def load_loras(build: Build, folder: str) -> list[Lora]:
    """The first validation LoRAs of each kind."""
    loras, counts = [], dict[str, int]()
    for path in sorted((build / folder).glob("val_holdout/*/*.safetensors")):
        file = LoraFile.open(path)
        recipe = json.loads(file.header.metadata["recipe"])
        kind = recipe.get("kind", "none")
        counts[kind] = counts.get(kind, 0) + 1
        if counts[kind] <= MOST and not recipe.get("trains_text"):
            loras.append((recipe, read_keys_and_values(file, 128)))
    return loras


class Ablation:
    """LoRAs, and their candidates' states before anything is taken out of them."""

    def __init__(self, build: Build) -> None:
        """Encode the candidates."""
        self.loras, self.silent = load_loras(build, "captions-bv"), load_loras(build, "fleet-b")
        concepts = json.loads((build / "concepts.json").read_text())
        self.labels = [concept["label"] for concept in concepts]
        nonsense = nonsense_words(1250, np.random.default_rng(SEED))
        own = [word for recipe, _ in self.loras for word in recipe["words"]]
        self.words = list(dict.fromkeys((*self.labels, *english_words()[::5], *nonsense, *own)))
        base = Bases.load().get("mini-b")
        self.encoder = PromptEncoder.load(base)
        texts = english_words()[::20]
        self.common_states = self.encoder.states(self.encoder.tokenize(texts), self.encoder.length)

    def measure(
        self,
        layers: Callable[[list[Tensor]], list[Tensor]] = lambda all_layers: all_layers,
        templates: Sequence[int] = (0, 1, 2),
        keep_shared: bool = False,
        grown: bool = True,
    ) -> dict[str, float]:
        """Metrics in % of one variant."""
        common = CommonStates.of(self.common_states)
        if keep_shared:
            common = replace(common, shared=common.shared[:0])
        chosen = make_templates(self.encoder, common)
        everything = make_candidates(self.encoder, common, chosen, self.words)
        chosen = tuple(chosen[number] for number in templates)
        states = everything.states[list(templates)]
        candidates = replace(everything, states=states)
        rows = torch.arange(len(self.labels))
        labels = Candidates(tuple(self.labels), everything.ends[rows], states[:, rows], everything.handicaps[rows])
        nothing = common.centred(prompt_states(self.encoder, NOTHING))
        hits: dict[str, list[float]] = {}
        leads: dict[bool, list[float]] = {True: [], False: []}
        for recipe, all_layers in (*self.loras, *self.silent):
            own = common.own_layers(layers(all_layers))
            opening = compare_openings(common, chosen, own, candidates, COMPARED)
            leads["kind" in recipe].append(
                float(opening.scores.max()) - max(0.0, float(common.scores(own, nothing).max()))
            )
            if "kind" not in recipe:
                continue
            found = (
                grow_caption(common, chosen, own, candidates, opening, nothing, TOP + 5, TEMPERATURE) if grown else []
            )
            read = [self.words[each.row] for each in found if each.row is not None]
            ranked = [self.words[int(opening.rows[place])] for place in opening.scores.argsort(descending=True)]
            answer = [word for word in dict.fromkeys((*read, *ranked)) if word not in NAMES_NOTHING][:TOP]
            kind, truth = recipe["kind"], recipe["words"]
            if kind == "label":
                best = compare_openings(common, chosen, own, labels, COMPARED)
                first = self.labels[int(best.rows[best.scores.argmax()])]
                hits.setdefault("label top 1 of 828", []).append(first == truth[0])
            if kind == "trigger":
                hits.setdefault("trigger top 1", []).append(answer[0] == truth[0])
                hits.setdefault("trigger top 10", []).append(truth[0] in answer)
            if kind == "several":
                hits.setdefault("several, recall@10", []).append(float(np.mean([word in answer for word in truth])))
        metrics = {name: 100 * float(np.mean(values)) for name, values in hits.items()}
        return metrics | {"none, AUROC": 100 * auroc(np.array(leads[True]), np.array(leads[False]))}


@contextmanager
def constant(name: str, value: float) -> Iterator[None]:
    """Give a constant of ``likelihood`` another value."""
    before = getattr(likelihood, name)
    setattr(likelihood, name, value)
    try:
        yield
    finally:
        setattr(likelihood, name, before)


def run_words_ablation(build: Build) -> None:
    """Write ``ablation-words.json``: the metrics of each variant."""
    ablation = Ablation(build)
    results = {"as it ships": ablation.measure()}
    settings: dict[str, dict[str, Any]] = {
        "keys alone": {"layers": lambda layers: layers[0::2]},
        "values alone": {"layers": lambda layers: layers[1::2]},
        "the first half of the layers": {"layers": lambda layers: layers[: len(layers) // 2]},
        "the second half": {"layers": lambda layers: layers[len(layers) // 2 :]},
        "template {} alone": {"templates": (0,)},
        "what all texts share is left in": {"keep_shared": True},
        "ranked side by side, not one after the other": {"grown": False},
    }
    for name, changed in settings.items():
        results[name] = ablation.measure(**changed)
        log.info("words: %s: %s", name, results[name])
    for name, constant_name, value in (
        ("strength 0.05", "STRENGTH", 0.05),
        ("strength 0.8", "STRENGTH", 0.8),
        ("no floor", "FLOOR", 1e-3),
        ("floor 0.3", "FLOOR", 0.3),
    ):
        with constant(constant_name, value):
            results[name] = ablation.measure()
        log.info("words: %s: %s", name, results[name])
    with atomic(build / "ablation-words.json") as path:
        path.write_text(json.dumps(results, indent=1))
