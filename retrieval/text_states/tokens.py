"""CLIP's tokenizer, made from the vocabulary that open_clip ships: a checkpoint in one file holds none.

It is transformers' own class, as diffusers' pipelines and the common trainers use it, so that tokens are equal by
construction. open_clip's ``tokenize``, with which the CLIPs of LAION were trained, cleans texts more: it repairs broken
encodings, makes curly quotes straight and opens ligatures (ftfy), and unescapes HTML. For ordinary prompts both give
the same tokens.
"""

import gzip
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
START_ID: Final = 49406
END_ID: Final = 49407
VOCABULARY_SIZE: Final = 49408
PAD_TOKENS: Final = {END_ID: END, 0: "!"}  # by their numbers
VOCABULARY_FILE: Final = "bpe_simple_vocab_16e6.txt.gz"  # in the folder of open_clip
# The file has more merges than CLIP uses, below a line that names it.
MERGES: Final = slice(1, VOCABULARY_SIZE - 2 * 256 - 2 + 1)


@cache
def load_tokenizer(pad: int = END_ID) -> Any:
    """Return CLIP's tokenizer of transformers, which pads with the token number ``pad`` (``END_ID`` or 0).

    With 0 an exclamation mark in a text is the token 0 too, since transformers looks for special tokens first.

    Raises:
        ImportError: open_clip, or the vocabulary in it, is not installed.
    """
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer  # takes longer to import than torch

    merges = [tuple(line.split()) for line in read_vocabulary_file().split("\n")[MERGES]]
    alphabet = sorted(ByteLevel.alphabet())  # the 256 bytes as printable characters, in the order of their tokens
    tokens = [*alphabet, *(character + "</w>" for character in alphabet), *map("".join, merges), START, END]
    numbers = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=numbers, merges=merges, pad_token=PAD_TOKENS[pad])


def read_vocabulary_file() -> str:
    """Read the vocabulary of CLIP without importing open_clip around it.

    Raises:
        ImportError: it is not there.
    """
    package = find_spec("open_clip")
    path = Path(package.origin).with_name(VOCABULARY_FILE) if package and package.origin else None
    if path is None or not path.is_file():
        raise ImportError(f"open_clip: expected {VOCABULARY_FILE} in it, found none; install open_clip_torch again")
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return stream.read()


def tokenize_texts(texts: Sequence[str], length: int, pad: int, special: int) -> Tensor:
    """Return the tokens of texts (n, length), int64: start, text, end, ``pad``...; longer ones are cut before the end.

    Args:
        texts: any texts.
        length: positions.
        pad: the token behind the end.
        special: the token that the tokenizer takes for its padding, as ``load_tokenizer``.

    Raises:
        ImportError: as ``load_tokenizer``.
    """
    rows = torch.full((len(texts), length), pad)
    if texts:
        # the Rust tokenizer itself: transformers' call around it takes three times as long
        for row, encoding in zip(
            rows, load_tokenizer(special).backend_tokenizer.encode_batch_fast(list(texts)), strict=True
        ):
            numbers = encoding.ids if len(encoding.ids) <= length else [*encoding.ids[: length - 1], END_ID]
            row[: len(numbers)] = torch.tensor(numbers)
    return rows
