"""Small experts to share: the miniature's for tree b, cut to two layers, under another name."""

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from loradex.app.experts.expert_metrics import ExpertMetrics
from loradex.app.paths import MINIATURE
from loradex.app.sharing.checkpoint import Checkpoint, load_expert
from loradex.app.sharing.shared_expert import FORMAT, SharedExpert
from loradex.retrieval.checkpoint import save_tensors
from loradex.retrieval.encoder import SPACE_FILE
from loradex.retrieval.probex.provenance import GROWN, Provenance
from loradex.retrieval.space.embedding_space import FORMAT as SPACE_FORMAT
from loradex.retrieval.space.embedding_space import Space

ENCODER = MINIATURE / "encoder"
MADE = Provenance(GROWN, "mini-b", "0123456789abcdef", words=663, steps=20, samples=48)
METRICS = ExpertMetrics("64 LoRAs", {"zero_shot_top1_heldout": {"value": 0.75, "n": 64.0}})


@cache
def whole() -> Checkpoint:
    return load_expert(ENCODER / "experts" / "mini-b.safetensors")


def small_expert(tree: str = "shared-b", layers: int = 2, **settings: Any) -> SharedExpert:
    """An expert of the miniature's space, without labels."""
    stored = whole()
    kept = list(stored.settings["sketch"]["layers"])[:layers]
    config = stored.settings["sketch"] | {"layers": kept}
    cut = {
        "tree": tree,
        "sketch": config,
        "alignment": {layer: stored.settings["alignment"][layer] for layer in kept},
        "shapes": {layer: stored.settings["shapes"][layer] for layer in kept},
        "provenance": MADE.document(),
    }
    names = [
        name for name in stored.tensors if name.startswith(("background.", "basis", *(f"{each}." for each in kept)))
    ]
    expert = Checkpoint({**stored.settings, **cut, **settings}, {name: stored.tensors[name] for name in names})
    return SharedExpert(expert, Checkpoint.load(ENCODER / SPACE_FILE, SPACE_FORMAT), metrics=METRICS)


def of_other_space(text_encoder: str = "ViT-B-32-quickgelu/openai", made_from: str = "ab" * 32) -> SharedExpert:
    """The same expert, said to map into the space of another CLIP."""
    shared = small_expert()
    space = Checkpoint(
        {"text_encoder": text_encoder, "templates": ["{}"], "made_from": made_from}, shared.space.tensors
    )
    name = Space(text_encoder, ("{}",), space.tensors["centre"], space.tensors["picture_centre"], made_from).name
    return replace(small_expert(space=name), space=space)


def put(shared: SharedExpert, encoder: Path) -> None:
    """Have an expert in an encoder folder, as training leaves it."""
    from loradex.app.sharing.adding import make_encoder

    make_encoder(shared, encoder)


def forged(
    path: Path,
    change_settings: Callable[[dict[str, Any]], None] = lambda settings: None,
    change_tensors: Callable[[dict[str, Tensor]], None] = lambda tensors: None,
) -> Path:
    """A shared expert that was changed by somebody who made digest and id fit again."""
    from loradex.app.sharing.checkpoint import content_digest, expert_id

    shared = small_expert()
    settings: dict[str, Any] = json.loads(
        json.dumps(
            {name: dict(part.settings) for name, part in shared.parts.items()} | {"expert_format": "loradex-expert-2"}
        )
    )
    tensors = {f"{part}.{name}": each for part, kept in shared.parts.items() for name, each in kept.tensors.items()}
    settings["metrics"] = {"on": METRICS.on, "metrics": dict(METRICS.metrics)}
    change_settings(settings)
    change_tensors(tensors)
    own = {name.removeprefix("expert."): each for name, each in tensors.items() if name.startswith("expert.")}
    if isinstance(settings.get("expert"), dict):
        settings.setdefault("id", expert_id(Checkpoint(settings["expert"], own)))
    text = json.dumps(settings)
    save_tensors(path, tensors, {"format": FORMAT, "settings": text, "sha256": content_digest((FORMAT, text), tensors)})
    return path


def header_length(raw: bytes) -> int:
    """The length of the header of a safetensors file, with its own eight bytes."""
    return 8 + int(struct.unpack("<Q", raw[:8])[0])
