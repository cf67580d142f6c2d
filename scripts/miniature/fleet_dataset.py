"""Loads a fleet as a dataset for training and measuring experts."""

import json

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import ConceptDataset
from loradex.retrieval.training.labelled_loras import find_labelled_loras
from loradex.retrieval.training.packing import pack_files
from scripts.miniature.pictures import load_pictures
from scripts.miniature.settings import SEED, TEMPLATES, Build, atomic, log

ANCHORS_PER_CONCEPT = 6  # drawings of each concept that are targets of probes


def load_fleet_dataset(build: Build, fleet: str) -> tuple[ConceptDataset, Tensor, Tensor]:
    """Read all LoRAs of a fleet.

    Returns:
        The dataset, and the mean vectors (dim,) of the texts and of the drawings of training concepts.
    """
    concepts = json.loads((build / "concepts.json").read_text())
    names = [concept["label"] for concept in concepts]
    splits = np.array([concept["split"] for concept in concepts])
    files = find_labelled_loras(build / f"fleet-{fleet}")
    models = pack_files(
        [file.path for file in files],
        progress=lambda done: log.info("packed %d of %d", done, len(files)) if done % 500 == 0 else None,
    )
    texts = TextEncoder.load(f"local-dir:{build / 'clip'}", TEMPLATES).encode(names).clone()
    vectors, (_, concept_of, trained_on, _) = drawing_vectors(build), load_pictures(build)
    drawing_means = torch.stack(
        [vectors[json.loads(LoraFile.open(file.path).header.metadata["recipe"])["drawings"]].mean(0) for file in files]
    )
    text_centre, picture_centre = (
        texts[splits == "train"].mean(0),
        vectors[(splits[concept_of] == "train") & trained_on].mean(0),
    )
    rng = np.random.default_rng(SEED)
    anchors = np.array(
        [
            rng.choice(np.flatnonzero((concept_of == concept) & trained_on), ANCHORS_PER_CONCEPT)
            for concept in range(len(names))
        ]
    )
    dataset = ConceptDataset(
        models=models,
        concept=torch.tensor([names.index(file.class_name) for file in files]),
        split=np.array([file.split for file in files]),
        names=tuple(names),
        concept_split=splits,
        texts=texts,
        labels=F.normalize(texts - text_centre, dim=-1),
        targets=F.normalize(drawing_means - picture_centre, dim=-1),
        anchors=F.normalize(vectors[anchors] - picture_centre, dim=-1),
    )
    return dataset, text_centre, picture_centre


def drawing_vectors(build: Build) -> Tensor:
    """The mini-CLIP's unit vectors (drawings, dim) of all drawings, kept in ``drawings.pt``."""
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
