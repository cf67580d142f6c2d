"""The shipped miniature: its search results, words, size and drawings."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from loradex.app.experts.category_evaluation import evaluate_classifiers
from loradex.app.experts.evaluation import evaluate_miniature
from loradex.app.paths import MINIATURE, SHIPPED_ZOO
from loradex.app.search.service import Loradex
from loradex.index import Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.training.labelled_classifiers import find_classifiers

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())
MAX_SIZE = 90_000_000  # bytes


def read_json(name: str) -> Any:
    return json.loads((MINIATURE / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def loradex() -> Loradex:
    return Loradex(SHIPPED_ZOO)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return evaluate_miniature()


@pytest.mark.parametrize("query", GOLDEN)
def test_golden_answers(loradex: Loradex, query: str) -> None:
    hits = loradex.search(query, 3).hits
    assert [hit.model.name for hit in hits] == [name for name, _ in GOLDEN[query]]
    np.testing.assert_allclose([hit.score for hit in hits], [score for _, score in GOLDEN[query]], atol=2e-3)


def test_the_zoo_is_of_the_current_version() -> None:
    """It may lie where it cannot be written, so it needs no migration; ``open_zoo`` would make one."""
    with Zoo.open(SHIPPED_ZOO, read_only=True) as zoo:
        assert len(zoo) == 300


def test_every_held_out_concept_ships_and_the_split_is_by_concept() -> None:
    split_of = {concept["label"]: concept["split"] for concept in read_json("concepts.json")}
    counts = {split: list(split_of.values()).count(split) for split in ("train", "validation", "heldout")}
    assert counts == {"train": 580, "validation": 83, "heldout": 165}
    shipped = {"test": set[str](), "test_holdout": set[str]()}
    for path in (MINIATURE / "models" / "mini-a").glob("*/*/*.safetensors"):
        shipped[path.parent.parent.name].add(trained_concept(path))
    assert shipped["test_holdout"] == {label for label, split in split_of.items() if split == "heldout"}
    assert {split_of[label] for label in shipped["test"]} == {"train"}


def trained_concept(path: Path) -> str:
    with path.open("rb") as file:
        return str(json.loads(file.read(int.from_bytes(file.read(8), "little")))["__metadata__"]["class_name"])


def test_the_zoo_holds_every_shipped_lora_with_a_preview(loradex: Loradex) -> None:
    models = list(loradex.zoo.models())
    assert len(models) == len(list(MINIATURE.glob("models/*/*/*/*.safetensors"))) >= 300
    for model in models:
        assert model.path is not None
        assert (SHIPPED_ZOO / model.path).is_file()
        with Image.open(SHIPPED_ZOO / str(model.preview)) as preview:
            assert preview.size == (128, 128)
            assert len(preview.convert("RGB").getcolors(1 << 14) or []) > 4


def test_it_is_small_enough_for_a_wheel() -> None:
    assert sum(path.stat().st_size for path in MINIATURE.rglob("*") if path.is_file()) <= MAX_SIZE


def caption_words() -> Iterator[str]:
    for concept in read_json("concepts.json"):
        for text in (concept["label"], *concept["tags"]):
            yield from re.findall("[a-z]+", text.lower())


@pytest.mark.parametrize(("name", "min_count"), [("synonyms.json", 200), ("keywords.json", 500)])
def test_query_words_are_in_no_caption(name: str, min_count: int) -> None:
    words, used = read_json(name), set(caption_words())
    assert len(words) >= min_count
    assert not [word for word in words if used.issuperset(re.findall("[a-z]+", word["word"]))]


def test_words_outside_the_captions_find_their_concept(report: dict[str, Any]) -> None:
    metrics = report["metrics"]
    assert metrics["synonym_top10"]["value"] >= 0.45
    assert metrics["keyword_top10"]["low"] > 10 * metrics["keyword_top10"]["chance"]


def test_metrics_are_above_their_minimum(report: dict[str, Any]) -> None:
    metrics = report["metrics"]
    assert metrics["zero_shot_top1_heldout"]["n"] >= 165
    assert metrics["zero_shot_top1_heldout"]["value"] >= 0.75
    assert metrics["text_to_model_map"]["value"] >= 0.85
    assert metrics["zero_shot_top1_all"]["value"] >= 0.47
    for baseline in report["baselines"].values():
        assert baseline["zero_shot_top1_heldout"]["high"] < metrics["zero_shot_top1_heldout"]["low"]


def test_a_base_model_draws_with_a_shipped_lora() -> None:
    from loradex.app.miniature.pipeline import CONSTANT_PROMPT, MiniaturePipeline, embed_prompts
    from loradex.retrieval.space.text_encoder import TextEncoder

    clip = TextEncoder.load(f"local-dir:{MINIATURE / 'encoder/clip'}", ("{}",))
    pipeline = MiniaturePipeline.from_folders(MINIATURE / "upsampler", MINIATURE / "trees/mini-a")
    states = embed_prompts(clip.model.text, clip.tokenizer([CONSTANT_PROMPT]))

    def draw() -> torch.Tensor:
        (picture,) = pipeline(states, num_inference_steps=4, generator=torch.Generator().manual_seed(0))
        return torch.from_numpy(np.asarray(picture).astype(np.float32))

    plain = draw()
    folder = sorted((MINIATURE / "models/mini-a/test_holdout").iterdir())[0]
    pipeline.load_lora_weights(folder, weight_name="pytorch_lora_weights.safetensors")
    assert (draw() - plain).abs().mean() > 1
    pipeline.unload_lora_weights()
    torch.testing.assert_close(draw(), plain)


@pytest.mark.parametrize(("tree", "models"), [("mini-vit", 18), ("mini-resnet", 8)])
def test_categories_of_shipped_classifiers_are_predicted(tree: str, models: int) -> None:
    """The classifiers were in no training; Loradex is best in the shipped comparison, with few parameters."""
    document = evaluate_miniature(tree)
    counts = {
        "models_test": models,
        "models_of_other_trees": 0,
        "refused": 0,
        "categories": 64,
        "categories_unknown_to_it": 0,
    }
    assert document["split"] == counts
    metrics = document["metrics"]
    assert metrics["accuracy_per_category"]["value"] > 0.9 and metrics["category_to_model_auroc"]["low"] > 0.75
    assert metrics["calibration_error"]["value"] < 0.05
    rows = document["measured_while_building"][f"categories-{tree}"]
    values = {
        name: [row["value"] for row in rows if row["encoder"] == name] for name in {row["encoder"] for row in rows}
    }
    sizes = {row["encoder"]: row.get("parameters") for row in rows}
    assert (
        all(len(measured) == 3 for measured in values.values())
        and max(values, key=lambda name: np.mean(values[name])) == "Loradex"
    )
    assert sizes["Loradex"] <= 0.1 * sizes["dense linear, all layers"]
    files = find_classifiers(MINIATURE / "classifiers" / tree)
    mislabelled = [
        replace(file, categories=other.categories) for file, other in zip(files, files[1:] + files[:1], strict=True)
    ]
    shuffled = evaluate_classifiers(MINIATURE, mislabelled, Encoder.load(MINIATURE / "encoder"))
    # At chance: predictions depend on the model, not only on how frequent categories are.
    assert 0.4 < shuffled["metrics"]["accuracy_per_category"]["value"] < 0.6
