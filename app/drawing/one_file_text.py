"""Text encoders and tokenizers of checkpoints in one file, as diffusers' pipelines take them."""

from copy import deepcopy
from typing import Any, Final

import torch
from torch import Tensor

from loradex.retrieval.base_model import BaseModel, Part
from loradex.retrieval.base_model.part import OPEN_CLIP
from loradex.retrieval.lora.header import Header
from loradex.retrieval.text_states import load_tokenizer
from loradex.retrieval.text_states.configs import config_from_shapes, unusable
from loradex.retrieval.text_states.families import EncoderFacts
from loradex.retrieval.text_states.weights import EncoderTensors

# where the projection of the pooled state comes from
IN_FILE: Final = "file"
IDENTITY: Final = "identity"


def load_text_encoder(base: BaseModel, facts: EncoderFacts, projection: str | None, dtype: torch.dtype) -> Any:
    """Load a CLIP text model of transformers, with a projection of its pooled state if there is one.

    Layers that diffusers' folders leave out are left out here, and those that only pooled states need are kept.

    Raises:
        CheckpointError: it is missing, or tensors of it are, or have another shape or an odd dtype.
        FileError: the file changed while it was read.
    """
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    part = base.parts.get(facts.component)
    if part is None:
        raise unusable(base.path, f"a {facts.component} in it", "none")
    tensors = EncoderTensors(part)
    config = config_from_shapes(tensors.shapes, facts, base.path)
    width, saved = config.sizes["hidden_size"], config.sizes["num_hidden_layers"]
    layers = saved - (facts.unused_layers[part.layout == OPEN_CLIP] if facts.normed else 0)
    if layers < 1:
        raise unusable(base.path, f"more than {saved - layers} layers in {facts.component}", str(saved))
    sizes = {**config.sizes, "num_hidden_layers": layers, "projection_dim": width}
    settings = CLIPTextConfig(**sizes, hidden_act=config.activation, layer_norm_eps=config.norm_epsilon)
    with torch.device("meta"):
        model = (CLIPTextModelWithProjection if projection else CLIPTextModel)(settings)
    text = getattr(model, "text_model", model)  # the model itself since transformers 5.6
    expected = text.state_dict()
    weights, _ = tensors.load(expected, dict.fromkeys(expected, dtype))
    text.load_state_dict(weights, assign=True)
    text.embeddings.position_ids = torch.arange(sizes["max_position_embeddings"])[None]  # no weight
    if projection:
        matrix = torch.eye(width) if projection == IDENTITY else read_projection(base, part, width)
        model.text_projection.load_state_dict({"weight": matrix.to(dtype)}, assign=True)
    return model.eval()


def read_projection(base: BaseModel, part: Part, width: int) -> Tensor:
    """The projection of pooled states (out, in).

    Raises:
        CheckpointError: it is missing, or has another shape.
    """
    header = Header.read(part.files[0])
    name = f"{part.prefix}text_projection" + ("" if part.layout == OPEN_CLIP else ".weight")
    shape = header.tensors[name].shape if name in header.tensors else None
    if shape != (width, width):
        raise unusable(base.path, f"tensor {name} of shape {(width, width)}", f"shape {shape}" if shape else "none")
    matrix = header.load([name])[name]
    return matrix.T.contiguous() if part.layout == OPEN_CLIP else matrix


def load_text_tokenizer(facts: EncoderFacts, length: int) -> Any:
    """CLIP's tokenizer for texts of ``length`` tokens: a copy, as pipelines change how a tokenizer pads and cuts."""
    tokenizer = deepcopy(load_tokenizer(facts.special))
    tokenizer.model_max_length = length
    return tokenizer
