"""The text encoder: texts and pictures -> unit vectors of CLIP, loaded through open_clip."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.errors import CheckpointError, QueryError

MAX_TEXT_LENGTH: Final = 1000  # characters
CACHE_SIZE: Final = 4096  # texts
BATCH: Final = 256  # texts


class TextEncoder:
    """The text and image towers of one CLIP, with an LRU cache of text vectors.

    Texts are averaged over prompt templates, as in CLIP (Radford et al. 2021, section 3.1.4).
    """

    def __init__(self, model: Any, tokenizer: Any, preprocess: Any, templates: Sequence[str]) -> None:
        """Wrap a loaded open_clip model; see ``load``."""
        self.model, self.tokenizer, self.preprocess, self.templates = model, tokenizer, preprocess, tuple(templates)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str, templates: Sequence[str], device: str = "cpu") -> "TextEncoder":
        """Load a model by any name that open_clip accepts.

        Args:
            name: ``local-dir:FOLDER``, ``hf-hub:OWNER/NAME``, or ``ARCHITECTURE/PRETRAINED``.
            templates: prompts with ``{}`` in place of the text.
            device: of the model.

        Raises:
            CheckpointError: open_clip cannot load it.
        """
        import open_clip  # takes longer to import than everything else that reading LoRAs needs

        architecture, _, pretrained = name.partition("/") if ":" not in name else (name, "", "")
        if name.startswith("local-dir:") and not list(Path(name.removeprefix("local-dir:")).glob("open_clip_model.*")):
            raise CheckpointError(
                f"{name}: expected open_clip_config.json and open_clip_model.safetensors there, found no weights; name another text encoder"
            )
        root_level = logging.getLogger().level
        try:
            logging.getLogger().setLevel(logging.ERROR)  # open_clip reports each load through the root logger
            model, _, preprocess = open_clip.create_model_and_transforms(
                architecture, pretrained or None, device=device
            )
            tokenizer = open_clip.get_tokenizer(architecture)
        except (OSError, RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"text encoder {name}: open_clip could not load it: {str(error).splitlines()[0][:200]}; check the name and the files"
            ) from None
        finally:
            logging.getLogger().setLevel(root_level)
        return cls(model.eval().requires_grad_(False), tokenizer, preprocess, templates)

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as unit vectors (n, dim).

        Raises:
            QueryError: a text is empty or longer than ``MAX_TEXT_LENGTH``.
        """
        normalized = [normalize_text(text) for text in texts]
        with self._lock:
            vectors = {text: self._cache[text] for text in normalized if text in self._cache}
        missing = [text for text in dict.fromkeys(normalized) if text not in vectors]
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            vectors |= dict(zip(batch, self._encode_batch(batch), strict=True))
        with self._lock:
            for text in normalized:
                self._cache[text] = vectors[text]
                self._cache.move_to_end(text)
            while len(self._cache) > CACHE_SIZE:
                self._cache.popitem(last=False)
        return torch.stack([vectors[text] for text in normalized]) if normalized else torch.empty(0, 0)

    def _encode_batch(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of normalized texts, averaged over the templates."""
        prompts = [template.replace("{}", text) for text in texts for template in self.templates]
        vectors = self.model.encode_text(self.tokenizer(prompts).to(self.device), normalize=True)
        return F.normalize(vectors.unflatten(0, (len(texts), -1)).mean(1), dim=-1).float().cpu()

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Encode PIL images as unit vectors (n, dim)."""
        batch = torch.stack([self.preprocess(picture.convert("RGB")) for picture in pictures]).to(self.device)
        return self.model.encode_image(batch, normalize=True).float().cpu()


def normalize_text(text: str) -> str:
    """Return a text on one line, in lower case, without control characters.

    Raises:
        QueryError: nothing is left, or more than ``MAX_TEXT_LENGTH`` characters are.
    """
    normalized = to_single_line(text).lower()
    if not normalized:
        raise QueryError(
            "query: expected some words, found none; say what the model should draw, such as 'a slice of pizza'"
        )
    if len(normalized) > MAX_TEXT_LENGTH:
        raise QueryError(
            f"query: expected at most {MAX_TEXT_LENGTH} characters, found {len(normalized)}; say it shorter"
        )
    return normalized


def to_single_line(text: str) -> str:
    """Replace control characters by spaces, and each run of white space by one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
