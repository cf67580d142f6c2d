"""The names of text encoders: CLIP's (transformers ``CLIPTextModel``), T5's encoder, and language models (Llama, Qwen, Gemma)."""

from typing import Final

from loradex.retrieval.lora.layer_names.rules import Tree, keep, rename

CLIP_LAYER: Final = "text_model.encoder.layers.#."
ATTENTION: Final = tuple((half, f"{half}_proj") for half in ("q", "k", "v", "out"))
PARTS: Final = (*(f"self_attn.{name}" for _, name in ATTENTION), "mlp.fc1", "mlp.fc2")
LANGUAGE: Final = (
    *(f"self_attn.{half}_proj" for half in "qkvo"),
    *(f"mlp.{part}_proj" for part in ("gate", "up", "down")),
)
OLD: Final = tuple((f"self_attn.to_{half}", f"self_attn.{name}") for half, name in ATTENTION)  # diffusers' first names

TEXT: Final = Tree(
    "text",
    (
        *keep(CLIP_LAYER, " ".join(PARTS)),
        *rename(CLIP_LAYER, CLIP_LAYER, OLD),
        *rename("encoder.layers.#.", CLIP_LAYER, [(name, name) for name in PARTS]),
        *keep("", "text_projection text_model.embeddings.token_embedding text_model.embeddings.position_embedding"),
        *keep("layers.#.", " ".join(LANGUAGE)),
        *rename("model.layers.#.", "layers.#.", [(name, name) for name in LANGUAGE]),
        *keep("encoder.block.#.layer.0.SelfAttention.", "q k v o"),
        *keep("encoder.block.#.layer.1.DenseReluDense.", "wi wi_0 wi_1 wo"),
    ),
)
