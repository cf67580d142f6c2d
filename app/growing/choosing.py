"""Of the pictures that a base model draws of a word, those that show it best.

A small or careless base model often draws something else. CLIP, into whose space the expert maps, says which pictures
show the word; LoRAs of these teach the expert more than as many LoRAs of all (docs/experiments.md).
"""

from collections.abc import Sequence

from PIL import Image

from loradex.retrieval.encoder import Encoder


def choose_pictures(
    pictures: Sequence[Image.Image], words: Sequence[str], count: int, encoder: Encoder
) -> list[list[Image.Image]]:
    """Choose ``count`` pictures of each word, the best first.

    Args:
        pictures: as many of each word, those of a word side by side.
        words: of the pictures.
        count: how many are kept of each word; all of them are kept in their order if there are no more.
        encoder: of the space that the expert maps into.
    """
    each = len(pictures) // len(words)
    groups = [list(pictures[start : start + each]) for start in range(0, len(pictures), each)]
    if each <= count:
        return groups
    vectors = encoder.encode_pictures(pictures).unflatten(0, (len(words), each))
    likeness = (vectors @ encoder.encode_texts(words)[:, :, None]).squeeze(-1)
    best = likeness.argsort(dim=1, descending=True, stable=True)[:, :count].tolist()
    return [[group[number] for number in numbers] for group, numbers in zip(groups, best, strict=True)]
