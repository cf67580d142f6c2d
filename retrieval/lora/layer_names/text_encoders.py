"""The layer names of text encoders: CLIP (as in transformers), T5, and language models (Llama, Qwen, Gemma)."""

from typing import Final

from loradex.retrieval.lora.layer_names.rules import Architecture, keep, rename

CLIP_LAYER: Final = "text_model.encoder.layers.#."
CLIP_PROJECTIONS: Final = tuple((name, f"{name}_proj") for name in ("q", "k", "v", "out"))
CLIP_MODULES: Final = (*(f"self_attn.{projection}" for _, projection in CLIP_PROJECTIONS), "mlp.fc1", "mlp.fc2")
LANGUAGE_MODEL_MODULES: Final = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
# of a language model with a head, and of one that sees pictures too, in old and new versions of transformers
LANGUAGE_MODEL_PARENTS: Final = ("model", "language_model.model", "language_model", "model.language_model")
OLD_CLIP_MODULES: Final = tuple(  # as early versions of diffusers named them
    (f"self_attn.to_{name}", f"self_attn.{projection}") for name, projection in CLIP_PROJECTIONS
)

TEXT_ENCODERS: Final = Architecture(
    "text",
    (
        *keep(CLIP_LAYER, " ".join(CLIP_MODULES)),
        *rename(CLIP_LAYER, CLIP_LAYER, OLD_CLIP_MODULES),
        *rename("encoder.layers.#.", CLIP_LAYER, [(name, name) for name in CLIP_MODULES]),
        *keep("", "text_projection text_model.embeddings.token_embedding text_model.embeddings.position_embedding"),
        *keep("layers.#.", " ".join(LANGUAGE_MODEL_MODULES)),
        *(
            rule
            for parent in LANGUAGE_MODEL_PARENTS
            for rule in rename(f"{parent}.layers.#.", "layers.#.", [(name, name) for name in LANGUAGE_MODEL_MODULES])
        ),
        *keep("", "lm_head"),
        *keep("encoder.block.#.layer.0.SelfAttention.", "q k v o"),
        *keep("encoder.block.#.layer.1.DenseReluDense.", "wi wi_0 wi_1 wo"),
    ),
)
