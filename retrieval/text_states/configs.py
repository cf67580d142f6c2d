"""The sizes of a text encoder: from ``config.json`` of a diffusers folder, or from the shapes of its tensors.

A configuration may be a stranger's. Of it only sizes and the names of known activations are used, each within bounds;
nothing in it can name code, a repository or another class.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from loradex.retrieval.base_model.json_file import read_json_object
from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.text_states.families import EncoderFacts
from loradex.retrieval.text_states.tokens import VOCABULARY_SIZE

MODEL_TYPE: Final = "clip_text_model"
ACTIVATIONS: Final = ("quick_gelu", "gelu")
SIZES: Final = {  # of transformers' CLIPTextConfig: what it takes where a configuration says nothing, and bounds
    "vocab_size": (VOCABULARY_SIZE, VOCABULARY_SIZE, 2**20),
    "hidden_size": (512, 1, 2**13),
    "intermediate_size": (2048, 1, 2**15),
    "num_hidden_layers": (12, 1, 100),
    "num_attention_heads": (8, 1, 256),
    "max_position_embeddings": (77, 1, 2**12),
}
LAYER_NUMBER: Final = re.compile(r"(?:encoder\.layers|transformer\.resblocks)\.(\d{1,3})\.")


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """What transformers' ``CLIPTextModel`` is built from.

    Attributes:
        sizes: by the names of ``CLIPTextConfig``; ``num_hidden_layers`` counts all that are saved.
        activation: one of ``ACTIVATIONS``.
        norm_epsilon: of the norms.
    """

    sizes: Mapping[str, int]
    activation: str
    norm_epsilon: float = 1e-5


def read_config(path: Path) -> EncoderConfig:
    """Read ``config.json`` of a text encoder that transformers wrote.

    Raises:
        CheckpointError: it is none of a CLIP text encoder, or beyond the bounds.
        FileCorrupt: it is no JSON object, or too long.
        FileMissing: it cannot be read.
    """
    config = read_json_object(path)
    if config.get("model_type", MODEL_TYPE) != MODEL_TYPE:
        raise unusable(path, f"model_type {MODEL_TYPE}", shown(config["model_type"]))
    if config.get("use_attention_mask"):
        raise unusable(path, "a text encoder that attends to all tokens before each", "use_attention_mask")
    activation = config.get("hidden_act", ACTIVATIONS[0])
    if activation not in ACTIVATIONS:
        raise unusable(path, f"hidden_act {' or '.join(ACTIVATIONS)}", shown(activation))
    epsilon = config.get("layer_norm_eps", 1e-5)
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise unusable(path, "layer_norm_eps between 0 and 1", shown(epsilon))
    return EncoderConfig(checked_sizes(config, path), activation, epsilon)


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]], facts: EncoderFacts, path: Path) -> EncoderConfig:
    """Make the config of a text encoder in a checkpoint in one file.

    Args:
        shapes: of its tensors, without prefix, by the names of transformers or of open_clip.
        facts: what shapes do not tell.
        path: of the checkpoint, for messages.

    Raises:
        CheckpointError: tensors are missing, or sizes are beyond the bounds.
    """
    numbers = [int(match[1]) for name in shapes if (match := LAYER_NUMBER.match(name))]
    matrices = [
        next((shapes[name] for name in names if len(shapes.get(name, ())) == 2), None)
        for names in (
            ("embeddings.token_embedding.weight", "token_embedding.weight"),
            ("embeddings.position_embedding.weight", "positional_embedding"),
            ("encoder.layers.0.mlp.fc1.weight", "transformer.resblocks.0.mlp.c_fc.weight"),
        )
    ]
    if None in matrices or not numbers:
        raise unusable(path, f"the {facts.component} of a CLIP", "tensors of its embeddings or layers missing")
    tokens, positions, hidden = (shape for shape in matrices if shape)
    sizes = {
        "vocab_size": tokens[0],
        "hidden_size": tokens[1],
        "intermediate_size": hidden[0],
        "num_hidden_layers": max(numbers) + 1,
        "num_attention_heads": max(1, tokens[1] // facts.head_width),
        "max_position_embeddings": positions[0],
    }
    return EncoderConfig(checked_sizes(sizes, path), facts.activation)


def checked_sizes(config: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Return the sizes that a configuration gives or implies.

    Raises:
        CheckpointError: one is no integer within ``SIZES``, or the width is no multiple of the heads.
    """
    sizes = {}
    for name, (default, least, most) in SIZES.items():
        size = config.get(name, default)
        if type(size) is not int or not least <= size <= most:
            raise unusable(path, f"{name} from {least} to {most}", shown(size))
        sizes[name] = size
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    if width % heads:
        raise unusable(path, f"a width that is a multiple of {heads} heads", str(width))
    return sizes


def shown(value: object) -> str:
    """A value of a configuration as messages show it."""
    return printable(repr(value))


def unusable(path: Path, expected: str, found: str) -> CheckpointError:
    """The error of a text encoder that cannot be used."""
    return CheckpointError(f"{path}: expected {expected}, found {found}; name a base model whose text encoder is whole")
