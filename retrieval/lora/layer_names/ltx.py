"""The layer names of LTX-Video and LTX-2, which has a stream of audio beside that of video.

Layers have the names of diffusers' ``LTXVideoTransformer3DModel`` (28 blocks of width 2048 or 48 of 4096) and
``LTX2VideoTransformer3DModel`` (48 blocks of width 4096 for video and 2048 for audio).

Sources: diffusers ``loaders/lora_conversion_utils.py`` (``_convert_non_diffusers_ltx2_lora_to_diffusers``),
``scripts/convert_ltx2_to_diffusers.py``.
"""

from collections.abc import Iterable
from typing import Final

from loradex.retrieval.lora.layer_names.flux import DOUBLE
from loradex.retrieval.lora.layer_names.rules import Architecture, Rule, keep, rename

ATTENTION_MODULES: Final = "to_q to_k to_v to_out.0 to_gate_logits"
ADAPTIVE_NORM: Final = "linear emb.timestep_embedder.linear_1 emb.timestep_embedder.linear_2"
LTX2_ATTENTIONS: Final = (
    *(f"{stream}attn{i}" for stream in ("", "audio_") for i in (1, 2)),
    "audio_to_video_attn",
    "video_to_audio_attn",
)
LTX2_NORMS: Final = (
    ("adaln_single", "time_embed"),
    ("audio_adaln_single", "audio_time_embed"),
    ("prompt_adaln_single", "prompt_adaln"),
    ("audio_prompt_adaln_single", "audio_prompt_adaln"),
    ("av_ca_video_scale_shift_adaln_single", "av_cross_attn_video_scale_shift"),
    ("av_ca_audio_scale_shift_adaln_single", "av_cross_attn_audio_scale_shift"),
    ("av_ca_a2v_gate_adaln_single", "av_cross_attn_video_a2v_gate"),
    ("av_ca_v2a_gate_adaln_single", "av_cross_attn_audio_v2a_gate"),
)


def stream_modules(prefix: str) -> list[Rule]:
    """Rules for the modules of one stream, video's or audio's, outside of the blocks, and its feed-forward part."""
    return [
        *keep(f"{DOUBLE}{prefix}ff.", "net.0.proj net.2"),
        *keep(prefix, "caption_projection.linear_1 caption_projection.linear_2 proj_in proj_out"),
        *rename(prefix, prefix, [("patchify_proj", "proj_in")]),
    ]


def adaptive_norms(names: Iterable[tuple[str, str]]) -> list[Rule]:
    """Rules for the embedders of time, by LTX's own names and diffusers'."""
    return [
        rule
        for source, target in names
        for rule in (
            *keep(f"{target}.", ADAPTIVE_NORM),
            *rename(f"{source}.", f"{target}.", [(name, name) for name in ADAPTIVE_NORM.split()]),
        )
    ]


def connectors() -> list[Rule]:
    """Rules for what turns the text states into those of each stream, a component of its own in diffusers."""
    rules = keep("connectors.", "text_proj_in video_text_proj_in audio_text_proj_in")
    for stream in ("", "video_", "audio_"):
        rules += rename(
            "text_embedding_projection.", "connectors.", [(f"{stream}aggregate_embed", f"{stream}text_proj_in")]
        )
    for stream in ("video", "audio"):
        target = f"connectors.{stream}_connector.transformer_blocks.#."
        modules = [*(f"attn1.{name}" for name in ATTENTION_MODULES.split()), "ff.net.0.proj", "ff.net.2"]
        rules += keep(target, " ".join(modules))
        rules += rename(
            f"{stream}_embeddings_connector.transformer_1d_blocks.#.", target, [(name, name) for name in modules]
        )
    return rules


LTX: Final = Architecture(
    "ltx-video",
    (
        *(rule for attn in ("attn1", "attn2") for rule in keep(f"{DOUBLE}{attn}.", "to_q to_k to_v to_out.0")),
        *stream_modules(""),
        *adaptive_norms(LTX2_NORMS[:1]),
    ),
)
LTX2: Final = Architecture(
    "ltx-2",
    (
        *(rule for attn in LTX2_ATTENTIONS for rule in keep(f"{DOUBLE}{attn}.", ATTENTION_MODULES)),
        *stream_modules(""),
        *stream_modules("audio_"),
        *adaptive_norms(LTX2_NORMS),
        *connectors(),
    ),
)
