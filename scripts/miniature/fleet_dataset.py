"""The fleets as experts are trained and measured on them, with the drawings of every concept."""

import json

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import Study
from loradex.retrieval.training.labelled_loras import find_labelled, pack
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, TEMPLATES, Build, atomic, log

ANCHORS = 6  # drawings of each concept that probes aim at


def load_study(build: Build, fleet: str) -> tuple[Study, Tensor, Tensor]:
    """Read every LoRA of a fleet once; the centres (dim,) of texts and of drawings come with it, both of training concepts."""
    concepts = json.loads((build / "concepts.json").read_text())
    names = [concept["label"] for concept in concepts]
    splits = np.array([concept["split"] for concept in concepts])
    files = find_labelled(build / f"fleet-{fleet}")
    models = pack(
        [file.path for file in files],
        progress=lambda done: log.info("packed %d of %d", done, len(files)) if done % 500 == 0 else None,
    )
    texts = TextEncoder.load(f"local-dir:{build / 'clip'}", TEMPLATES).encode(names).clone()
    drawings, (_, concept_of, trained_on, _) = drawing_vectors(build), load_pictures(build)
    own = torch.stack(
        [drawings[json.loads(LoraFile.open(file.path).header.metadata["recipe"])["drawings"]].mean(0) for file in files]
    )
    centre, picture_centre = (
        texts[splits == "train"].mean(0),
        drawings[(splits[concept_of] == "train") & trained_on].mean(0),
    )
    rng = np.random.default_rng(SEED)
    drawn = np.array(
        [rng.choice(np.flatnonzero((concept_of == concept) & trained_on), ANCHORS) for concept in range(len(names))]
    )
    study = Study(
        models=models,
        concept=torch.tensor([names.index(file.class_name) for file in files]),
        split=np.array([file.split for file in files]),
        names=tuple(names),
        concept_split=splits,
        texts=texts,
        labels=F.normalize(texts - centre, dim=-1),
        targets=F.normalize(own - picture_centre, dim=-1),
        anchors=F.normalize(drawings[drawn] - picture_centre, dim=-1),
    )
    return study, centre, picture_centre


def drawing_vectors(build: Build) -> Tensor:
    """CLIP's unit vectors (drawings, dim) of all drawings, made once."""
    path = build / "drawings.pt"
    if not path.exists():
        encoder, pixels = TextEncoder.load(f"local-dir:{build / 'clip'}", TEMPLATES), load_pictures(build)[0]
        batches = (pixels[start : start + 128] for start in range(0, len(pixels), 128))
        with atomic(path) as temporary:
            torch.save(
                torch.cat(
                    [encoder.encode_pictures([Image.fromarray(picture) for picture in batch]) for batch in batches]
                ),
                temporary,
            )
    return torch.load(path, weights_only=True)
