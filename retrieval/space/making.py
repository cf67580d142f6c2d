"""Makes a space from a CLIP: its centres, its default labels, and a name that is the same on every machine."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from loradex.retrieval.space.clip_files import LOCAL_FOLDER, ClipFiles
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.everyday import everyday_digest, everyday_pictures, everyday_words
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.space.text_encoder import TextEncoder

TEMPLATES: Final = ("{}", "a picture of {}")  # a query may be a thing, a style or a whole scene
VERSION: Final = 1  # of this way of making spaces; part of their names
WORDS_AT_ONCE: Final = 64
SCALES: Final = ("logit_scale", "logit_bias")  # of training, which no vector depends on

MakingProgress = Callable[[int, int, str], None]


def make_space(
    name: str, files: ClipFiles, folder: Path, progress: MakingProgress = lambda done, total, word: None
) -> tuple[Space, LabelList]:
    """Make the space of a CLIP, and its default labels, the everyday words.

    Texts are centred on the mean of the everyday words and pictures on the mean of the everyday pictures: a CLIP's
    texts and pictures lie in two cones (Liang et al. 2022, "Mind the gap"), and cosines across them say little until
    each cone's mean is taken away.

    Args:
        name: of the text encoder, for people to read.
        files: of the CLIP.
        folder: that ``files`` were written into.
        progress: called with the number of words that are encoded, of how many, and the last one.

    Raises:
        CheckpointError: the CLIP cannot be loaded.
    """
    clip = TextEncoder.load(f"{LOCAL_FOLDER}{folder}", TEMPLATES)
    made_from = digest_of_clip(clip.model, files.config)  # before the long work, as it also checks all files
    words, vectors = everyday_words(), list[Tensor]()
    for start in range(0, len(words), WORDS_AT_ONCE):
        progress(start, len(words), words[start])
        vectors.append(clip.encode(words[start : start + WORDS_AT_ONCE]))
    progress(len(words), len(words), "")
    texts = torch.cat(vectors)
    pictures = torch.cat([clip.encode_pictures([picture]) for picture in everyday_pictures()])
    space = Space(name, TEMPLATES, texts.mean(0), pictures.mean(0), made_from)
    return space, LabelList(words, space.centre_texts(texts))


def digest_of_clip(model: Any, config: Mapping[str, Any]) -> str:
    """A digest of all that the vectors of a space depend on, equal on all machines.

    Weights count as they are once loaded, and settings only where they differ from open_clip's defaults, so that one
    CLIP has one digest however it was named and saved.

    Args:
        model: of open_clip, in float32.
        config: with ``model_cfg``.
    """
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg
    from open_clip.transform import PreprocessCfg

    sizes = config["model_cfg"]
    settings = {
        "vision": other_than_default(CLIPVisionCfg, sizes["vision_cfg"]),
        "text": other_than_default(CLIPTextCfg, sizes["text_cfg"]),
        "quick_gelu": bool(sizes.get("quick_gelu")),
        "pictures": other_than_default(PreprocessCfg, model.visual.preprocess_cfg),
    }
    parts = [VERSION, settings, TEMPLATES, everyday_digest()]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if name not in SCALES:
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).data)
    return digest.hexdigest()


def other_than_default(config_class: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from the defaults of open_clip's dataclass; lists and tuples count as equal."""
    defaults = {field.name: field.default for field in fields(config_class) if field.default is not MISSING}
    as_json = {key: json.loads(json.dumps(value)) for key, value in settings.items()}
    return {
        key: value
        for key, value in as_json.items()
        if key not in defaults or value != json.loads(json.dumps(defaults[key]))
    }
