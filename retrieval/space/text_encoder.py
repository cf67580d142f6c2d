"""The text encoder: texts and pictures -> unit vectors of CLIP; open_clip is loaded only where it is needed."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from loradex.retrieval.errors import QueryError
from loradex.retrieval.space.clip_files import LOCAL_FOLDER, local_clip
from loradex.retrieval.space.text_tower import TextTower

MAX_TEXT_LENGTH: Final = 1000  # characters
CACHE_SIZE: Final = 4096  # texts
BATCH: Final = 256  # texts


class TextEncoder:
    """The text and image towers of one CLIP, with an LRU cache of text vectors.

    Texts are averaged over prompt templates, as in CLIP (Radford et al. 2021, section 3.1.4). The text tower of a plain
    CLIP in a folder is read alone; both towers are loaded by open_clip for pictures, and for any other CLIP.
    """

    def __init__(self, name: str, templates: Sequence[str], device: str = "cpu") -> None:
        """Set what is loaded; see ``load``."""
        self.name, self.templates, self.device = name, tuple(templates), torch.device(device)
        self._cache: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str, templates: Sequence[str], device: str = "cpu") -> "TextEncoder":
        """Load a CLIP that is on this machine; only ``loradex space use`` fetches one.

        Args:
            name: ``local-dir:FOLDER``, ``hf-hub:OWNER/NAME``, or ``ARCHITECTURE/PRETRAINED``, as ``parse_clip_name``.
            templates: prompts with ``{}`` in place of the text.
            device: of the model.

        Raises:
            CheckpointError: its files are not on this machine, or open_clip cannot load them.
        """
        encoder = cls(name, templates, device)
        if encoder.text_tower is None:
            encoder._clip  # noqa: B018 - so that errors of loading are found here
        return encoder

    @cached_property
    def text_tower(self) -> TextTower | None:
        """The text tower of a plain CLIP in a folder."""
        folder = Path(self.name.removeprefix(LOCAL_FOLDER))
        return TextTower.load(folder, self.device) if self.name.startswith(LOCAL_FOLDER) else None

    @cached_property
    def _clip(self) -> tuple[Any, Any, Any]:
        """The model, the tokenizer and the transform of pictures, as open_clip makes them.

        Raises:
            CheckpointError: its files are not on this machine, or open_clip cannot load them.
        """
        return local_clip(self.name).load(self.name, self.device)

    @property
    def model(self) -> Any:
        """The CLIP, both towers."""
        return self._clip[0]

    @property
    def tokenizer(self) -> Any:
        """Texts to tokens (n, context length) of the model."""
        return self._clip[1]

    @property
    def preprocess(self) -> Any:
        """A PIL image to a tensor (3, height, width) of the model."""
        return self._clip[2]

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
        tower = self.text_tower
        vectors = tower.encode_texts(prompts) if tower else self._encode_by_clip(prompts)
        return F.normalize(vectors.unflatten(0, (len(texts), -1)).mean(1), dim=-1).float().cpu()

    def _encode_by_clip(self, prompts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of prompts, by open_clip."""
        return self.model.encode_text(self.tokenizer(prompts).to(self.device), normalize=True)

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
