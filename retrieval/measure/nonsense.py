"""Words that mean nothing, such as people invent as trigger words: to train LoRAs with, and to be told apart."""

from collections.abc import Collection
from typing import Final

import numpy as np

ONSETS: Final = (*"bcdfghjklmnprstvwxyz", "ch", "sh", "th", "br", "kr", "st", "tr", "zh", "qu")
VOWELS: Final = (*"aeiou", "ai", "ee", "oo", "y")
CODAS: Final = ("", "", "", *"lmnrskxzt")
CONSONANTS: Final = "bcdfghjklmnpqrstvwxz"
SYLLABLES: Final = (2, 2, 2, 3)  # numbers of them in a word, each as often as it stands here
UNSPEAKABLE_SHARE: Final = 0.2  # of words like "ohwx": a vowel among consonants, or none
LENGTHS: Final = (3, 10)  # letters


def nonsense_words(count: int, rng: np.random.Generator, excluded: Collection[str] = ()) -> list[str]:
    """Return different words of 3 to 10 lower-case letters that are not among ``excluded``."""
    words: dict[str, None] = {}
    while len(words) < count:
        word = unspeakable(rng) if rng.random() < UNSPEAKABLE_SHARE else pronounceable(rng)
        if LENGTHS[0] <= len(word) <= LENGTHS[1] and word not in excluded:
            words[word] = None
    return list(words)


def pronounceable(rng: np.random.Generator) -> str:
    """Some syllables, like "kozu"."""
    parts = (str(rng.choice(sounds)) for _ in range(rng.choice(SYLLABLES)) for sounds in (ONSETS, VOWELS, CODAS))
    return "".join(parts)


def unspeakable(rng: np.random.Generator) -> str:
    """Three to five letters, like "ohwx" or "zxc"."""
    letters = list(rng.choice(list(CONSONANTS), int(rng.integers(3, 6))))
    if rng.random() < 0.5:
        letters[int(rng.integers(len(letters)))] = str(rng.choice(list("aeiou")))
    return "".join(letters)
