"""What a sound safetensors file without LoRA factors is, told from the names and shapes of its tensors.

Sources of the names: diffusers ``models/`` and ``loaders/textual_inversion.py``, ComfyUI's folders of models, PEFT's
prefixes of tuners (``peft/tuners/*/model.py``).
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from loradex.retrieval.lora.layout import TensorInfo
from loradex.retrieval.lora.problems import QUANTISED, printable
from loradex.retrieval.lora.quantised import is_quantiser_name

HEAD_WORDS: Final = 4  # of a name, which tell what it belongs to
MAX_EMBEDDING_TENSORS: Final = 8
MAX_EMBEDDING_VECTORS: Final = 512
EXPECTED: Final = "expected LoRA factors (lora.down/up, lora_A/B, hada, lokr, diff)"
FACTOR: Final = re.compile(r"[._](lora|hada|lokr|glora)[._]")  # in a name, also of one that is packed
PLAIN_NUMBERS: Final = "save the LoRA in float16 or bfloat16, with the tool that made it"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of weights.

    Attributes:
        description: what it is, in words that follow "found".
        folder: where programs that draw look for it; "" if there is no usual place.
    """

    description: str
    folder: str = ""

    @property
    def mend(self) -> str:
        """What to do about it, where a LoRA is expected."""
        return f"it belongs in the folder {self.folder}; choose another file" if self.folder else "choose another file"


IP_ADAPTER: Final = Kind("an IP-Adapter", "ipadapter")
VAE: Final = Kind("a VAE", "vae")
U_NET: Final = Kind("a U-Net alone", "diffusion_models")
TRANSFORMER: Final = Kind("a diffusion transformer alone", "diffusion_models")
CLIP: Final = Kind("a text encoder alone", "text_encoders")
# the first words of names, what the file is; the first that fits is named
KINDS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"image_proj\b|ip_adapter", IP_ADAPTER),
        (r"pulid_", Kind("a PuLID model", "pulid")),
        (r"control|input_hint_block|zero_convs|lora_controlnet|lllite_", Kind("a ControlNet", "controlnet")),
        (r"adapter\.(body|conv_in)|body\.\d+\.(resnets|block\d|in_conv)", Kind("a T2I-Adapter", "controlnet")),
        (r".*\bmotion_modules\b", Kind("motion modules of AnimateDiff", "animatediff_models")),
        (r"(model\.)?diffusion_model\.", Kind("a diffusion model alone", "diffusion_models")),
        (r"first_stage_model\.|vae\.", VAE),
        (r"cond_stage_model\.|conditioner\.|text_encoders\.", Kind("text encoders alone", "text_encoders")),
        (r"text_model\.|clip_[lg]\.|t5(xxl)?\.|encoder\.block\.|shared\.|text_projection$", CLIP),
        (r"(model\.)?(layers\.\d+\.self_attn|embed_tokens|language_model)\b", CLIP),
        (r"vision_model\.|visual\.|image_encoder\.|vision_tower\.", Kind("a CLIP", "clip_vision")),
        (r"redux_(up|down)\b", Kind("a Redux model", "style_models")),
        (r"(768|1280|1024|640|320|2048)\.|hypernet", Kind("a hypernetwork", "hypernetworks")),
        (r"(post_)?quant_conv\.|(encoder|decoder)\.(conv|down|up|mid|head|middle|norm_out|layers|\d)", VAE),
        (r"(input|output)_blocks\.|(down|up)_blocks\.", U_NET),
        (
            r"(net\.)?(joint|double|single|(single_)?transformer)_blocks\.|(net\.)?blocks\.\d|double_layers\.|layers\.\d",
            TRANSFORMER,
        ),
        (
            r"conv_first\.|model\.\d+\.(weight|bias|sub|conv)|params|body\.\d|upsampl",
            Kind("an upscaler", "upscale_models"),
        ),
    )
)
DIFFUSION: Final = re.compile(r"model\.diffusion_model\.")
TEXT: Final = re.compile(r"cond_stage_model\.|conditioner\.|text_encoders\.")
CHECKPOINT: Final = Kind("a whole checkpoint", "checkpoints")
# what trainers that use PEFT write for its other methods, by the prefix of their parameters
PEFT_METHODS: Final = {
    "adamss": "AdaMSS", "bone": "Bone", "c3a": "C3A", "delora": "DeLoRA", "fourierft": "FourierFT", "glora": "GLoRA",
    "gralora": "GraLoRA", "hira": "HiRA", "hra": "HRA", "lily": "Lily", "ln_tuning": "LN tuning", "miss": "MiSS",
    "osf": "OSF", "poly": "Poly", "psoft": "PSOFT", "pvera": "PVeRA", "randlora": "RandLoRA", "road": "RoAd",
    "shira": "SHiRA", "tinylora": "TinyLoRA", "unilora": "UniLoRA", "vblora": "VB-LoRA", "vera": "VeRA",
    "waveft": "WaveFT",
}  # fmt: skip
PEFT_METHOD: Final = re.compile(rf"(?:.*\.)?({'|'.join(PEFT_METHODS)})_[A-Za-z0-9_]+(?:\.\w+){{0,2}}")
# widths of the text encoders that a textual inversion is for, and the family that has them
EMBEDDINGS: Final[Mapping[frozenset[int], str]] = {
    frozenset({768}): "Stable Diffusion 1",
    frozenset({1024}): "Stable Diffusion 2",
    frozenset({1280}): "SDXL",
    frozenset({768, 1280}): "SDXL",
    frozenset({768, 1280, 4096}): "Stable Diffusion 3",
    frozenset({768, 4096}): "Flux.1",
    frozenset({4096}): "a model with T5",
}
EMBEDDING_NAME: Final = re.compile(
    r"emb_params|<.*>|\*|string_to_param\..*|bundle_emb\..*|(clip_[lgh]|t5(xxl)?|te\d?|text_encoders?_\d|qwen\w*|llama\w*|gemma\w*)(_out)?"
)


def kind_of_weights(tensors: Mapping[str, TensorInfo]) -> Kind | None:
    """Tell what weights are that hold no LoRA factors; None if it cannot be told."""
    embedding = kind_of_embedding(tensors)
    if embedding:
        return embedding
    for name in tensors:
        method = PEFT_METHOD.fullmatch(name) if len(name) < 400 else None
        if method:
            return Kind(f"{PEFT_METHODS[method[1]]}, a method of PEFT that is no LoRA")
    heads = {".".join(name[:400].split(".")[:HEAD_WORDS]) for name in tensors}
    if any_begins(DIFFUSION, heads) and any_begins(TEXT, heads):
        return CHECKPOINT
    return next((kind for pattern, kind in KINDS if any_begins(pattern, heads)), None)


def any_begins(pattern: re.Pattern[str], heads: Collection[str]) -> bool:
    """Whether a head begins so."""
    return any(pattern.match(head) for head in heads)


def kind_of_embedding(tensors: Mapping[str, TensorInfo]) -> Kind | None:
    """A textual inversion: few vectors, for each text encoder under its name; None if the file is something else.

    diffusers writes them under the token itself: then only a width of a known text encoder tells them.
    """
    shapes = {name: info.shape for name, info in tensors.items()}
    if not 0 < len(shapes) <= MAX_EMBEDDING_TENSORS:
        return None
    vectors = {name: shape[0] if len(shape) == 2 else 1 for name, shape in shapes.items() if len(shape) in (1, 2)}
    if not vectors or max(vectors.values()) > MAX_EMBEDDING_VECTORS:
        return None
    widths = frozenset(shapes[name][-1] for name in vectors if shapes[name][-1] > 1)
    if any(EMBEDDING_NAME.fullmatch(name) is None for name in shapes) and (
        len(shapes) > 1 or widths not in EMBEDDINGS or any(name.endswith((".weight", ".bias")) for name in shapes)
    ):
        return None
    count, family = max(vectors.values()), EMBEDDINGS.get(widths)
    of_family = f" for {family}" if family else f" of widths {', '.join(map(str, sorted(widths)))}"
    return Kind(f"a textual inversion (embedding) of {count} vectors{of_family}", "embeddings")


def is_ip_adapter(names: Collection[str]) -> bool:
    """Whether names are those of an IP-Adapter, some of which have LoRA factors beside their projections."""
    return any(name.startswith("image_proj.") for name in names) and any(
        name.startswith("ip_adapter.") for name in names
    )


def why_no_lora(tensors: Mapping[str, TensorInfo], skipped: Mapping[str, Collection[str]]) -> str:
    """Why a file is no LoRA that can be read, what it is, and what to do.

    Args:
        tensors: of the file.
        skipped: the modules of each kind of part that is not read.
    """
    packed = (name for name in tensors if FACTOR.search(name) and is_quantiser_name(name))
    name = next(iter(skipped.get(QUANTISED, ())), None) or next(packed, None)
    if name:
        return f"{EXPECTED} as plain numbers, found quantised ones, such as of {printable(name)}; {PLAIN_NUMBERS}"
    parts = {kind: len(modules) for kind, modules in skipped.items() if kind != "embedding"}
    if parts:
        found = ", ".join(f"{kind} of {count} layers" for kind, count in parts.items())
        return f"{EXPECTED}, found {found}, which cannot be read without the base model; choose another file"
    kind = kind_of_weights(tensors)
    if kind:
        return f"{EXPECTED}, found {kind.description}; {kind.mend}"
    found = f"{len(tensors)} tensors such as {printable(next(iter(tensors)))}" if tensors else "no tensors"
    return f"{EXPECTED}, found {found}; choose another file"
