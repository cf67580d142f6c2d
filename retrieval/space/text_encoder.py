"""Words and pictures -> unit vectors of CLIP, through open_clip's own factory."""

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

LONGEST_TEXT: Final = 1000  # characters
REMEMBERED: Final = 4096  # texts


class TextEncoder:
    """The two towers of one CLIP, with a memory of the texts encoded last.

    Texts are averaged over prompt templates, as Radford et al. (CLIP, 2021, section 3.1.4) do.
    """

    def __init__(self, model: Any, tokenizer: Any, preprocess: Any, templates: Sequence[str]) -> None:
        """Wrap a loaded open_clip model; see ``load``."""
        self.model, self.tokenizer, self.preprocess, self.templates = model, tokenizer, preprocess, tuple(templates)
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(cls, name: str, templates: Sequence[str], device: str = "cpu") -> "TextEncoder":
        """Load by any name open_clip knows: ``local-dir:FOLDER``, ``hf-hub:OWNER/NAME``, or ``ARCHITECTURE/PRETRAINED``.

        Raises:
            CheckpointError: open_clip cannot load it.
        """
        import open_clip  # which takes longer than all else that reading LoRAs needs

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
        """Where the towers live."""
        return next(self.model.parameters()).device

    @torch.inference_mode()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (n, dim) of texts.

        Raises:
            QueryError: a text is empty or longer than ``LONGEST_TEXT``.
        """
        cleaned = [clean(text) for text in texts]
        with self._lock:
            known = {text: self._memory[text] for text in cleaned if text in self._memory}
        new = [text for text in dict.fromkeys(cleaned) if text not in known]
        for start in range(0, len(new), 256):
            batch = new[start : start + 256]
            known |= dict(zip(batch, self._encode(batch), strict=True))
        with self._lock:
            for text in cleaned:
                self._memory[text] = known[text]
                self._memory.move_to_end(text)
            while len(self._memory) > REMEMBERED:
                self._memory.popitem(last=False)
        return torch.stack([known[text] for text in cleaned]) if cleaned else torch.empty(0, 0)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        prompts = [template.replace("{}", text) for text in texts for template in self.templates]
        vectors = self.model.encode_text(self.tokenizer(prompts).to(self.device), normalize=True)
        return F.normalize(vectors.unflatten(0, (len(texts), -1)).mean(1), dim=-1).float().cpu()

    @torch.inference_mode()
    def encode_pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Unit vectors (n, dim) of PIL pictures."""
        batch = torch.stack([self.preprocess(picture.convert("RGB")) for picture in pictures]).to(self.device)
        return self.model.encode_image(batch, normalize=True).float().cpu()


def clean(text: str) -> str:
    """A text without control characters and outer white space.

    Raises:
        QueryError: nothing is left, or more than ``LONGEST_TEXT`` characters are.
    """
    cleaned = printable(text).lower()
    if not cleaned:
        raise QueryError(
            "query: expected some words, found none; say what the model should draw, such as 'a slice of pizza'"
        )
    if len(cleaned) > LONGEST_TEXT:
        raise QueryError(f"query: expected at most {LONGEST_TEXT} characters, found {len(cleaned)}; say it shorter")
    return cleaned


def printable(text: str) -> str:
    """A text on one line, without control characters and outer white space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
