"""Evidence of what a model draws (of a classifier: of what it tells apart), read from its weights by an expert."""

from typing import Any, Final

import torch

from loradex.app.experts.category_prediction import likely_categories, ranked_by_probability
from loradex.app.indexing.evidence.finding import Finding
from loradex.app.indexing.evidence.positions import calibrated
from loradex.app.models import NO_EXPERT
from loradex.index.vectors import Vector
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import NoExpert
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.category_expert import CategoryExpert
from loradex.retrieval.remote import RemoteModel

MAX_LABELS: Final = 3  # stored with a LoRA
MIN_LABEL_PROBABILITY: Final = 0.05  # of a label that is stored

Labels = list[list[Any]]  # names with their probabilities, the most probable first


def read_local(encoder: Encoder, weights: WeightsFile) -> Finding:
    """Read a file of this machine: a position with labels or categories, or the reason why there is none.

    Raises:
        FileCorrupt: the weights cannot be used.
    """
    try:
        expert, layers = encoder.router.route(weights)
    except NoExpert as error:
        return Finding(facts={NO_EXPERT: str(error.reason)})
    if not isinstance(expert, CategoryExpert):
        vector = expert.encode_factors(layers)[0].numpy()
        return finding(encoder, expert.tree, vector, predicted_labels(encoder, expert.tree, vector))
    probabilities = expert.probabilities(layers)
    likely = likely_categories(ranked_by_probability(expert.categories, probabilities[0].tolist()))
    categories: Labels = [[name, round(probability, 3)] for name, probability in likely]
    return finding(encoder, expert.tree, expert.embed_probabilities(probabilities)[0].numpy(), categories)


def read_remote(encoder: Encoder, remote: RemoteModel) -> Finding:
    """Take the vector that was made while a remote file was read, or the reason why there is none."""
    if remote.vector is None:
        return Finding(facts={NO_EXPERT: str(remote.no_expert)})
    vector = remote.vector.numpy()
    return finding(encoder, remote.tree, vector, predicted_labels(encoder, remote.tree, vector))


def finding(encoder: Encoder, tree: str | None, vector: Vector, labels: Labels | None) -> Finding:
    """What an expert of a model tree says."""
    position = calibrated(encoder, tree, vector)
    return Finding(position, {} if labels is None else {"labels": labels})


def predicted_labels(encoder: Encoder, tree: str | None, vector: Vector) -> Labels | None:
    """The best of the default labels with their probabilities; None without default labels."""
    expert = encoder.experts.get(tree or "")
    if expert is None or not encoder.has_labels:
        return None
    best = encoder.default_labels.best(expert.calibration, torch.from_numpy(vector), MAX_LABELS)
    return [[label.label, round(label.probability, 3)] for label in best if label.probability >= MIN_LABEL_PROBABILITY]
