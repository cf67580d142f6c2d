"""The text tower of a plain CLIP, read from its safetensors file and run by torch alone.

Importing open_clip takes twice as long as importing torch, as torchvision, transformers and timm come with it; a search
by text needs none of them. This tower is that of Radford et al. 2021 (section 2.4), as open_clip's ``TextTransformer``
has it where a config sets nothing but sizes: all CLIPs of OpenAI and most of LAION and DataComp. For any other config
or file ``TextTower.load`` returns None, and open_clip itself is asked.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

WEIGHTS_FILE: Final = "open_clip_model.safetensors"  # the first that open_clip looks for in a folder
CONFIG_FILE: Final = "open_clip_config.json"
MAX_CONFIG: Final = 2**20  # bytes
TEXT_KEYS: Final = {"context_length", "vocab_size", "width", "heads", "layers"}
MODEL_KEYS: Final = {"embed_dim", "vision_cfg", "text_cfg"}
# Of these, quick_gelu alone matters here; custom_text says where the tensors are, which their names say too.
OPTIONAL_KEYS: Final = {"quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias"}
TOKENS: Final = "token_embedding.weight"
OTHER_TENSORS: Final = ("visual.", "logit_scale", "logit_bias")


@dataclass(frozen=True, slots=True)
class TextTower:
    """A causal transformer over the tokens of a text, read at the last token.

    Attributes:
        tokens: (vocabulary, width), the vectors of tokens as they are stored, of which a text needs few.
        weights: the other tensors by the names of open_clip's ``TextTransformer``, in float32.
        layers, heads, context_length: sizes; a longer text is cut to ``context_length`` tokens.
        quick_gelu: whether GELU is x * sigmoid(1.702 x), as in OpenAI's CLIPs.
    """

    tokens: Tensor
    weights: Mapping[str, Tensor]
    layers: int
    heads: int
    context_length: int
    quick_gelu: bool

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "TextTower | None":
        """Read the tower of the CLIP in a folder; None if it is no plain one, or cannot be read."""
        try:
            with (folder / CONFIG_FILE).open("rb") as stream:
                model = json.loads(stream.read(MAX_CONFIG))["model_cfg"]
            text, dim = model["text_cfg"], model["embed_dim"]
            if not MODEL_KEYS <= model.keys() <= MODEL_KEYS | OPTIONAL_KEYS or text.keys() != TEXT_KEYS:
                return None
            if not all(isinstance(size, int) and size > 0 for size in (dim, *text.values())):
                return None
            with safe_open(folder / WEIGHTS_FILE, "pt", device=str(device)) as file:
                names = [name for name in file.keys() if not name.startswith(OTHER_TENSORS)]  # noqa: SIM118 - no mapping
                weights = {name.removeprefix("text."): file.get_tensor(name) for name in names}
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError, RuntimeError):
            return None  # open_clip says what is wrong
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        fits = text["width"] % text["heads"] == 0 and text["layers"] < len(shapes)
        if not fits or shapes != tensor_shapes(dim, text):
            return None
        table = weights.pop(TOKENS)
        weights = {name: tensor.float() for name, tensor in weights.items()}
        return cls(table, weights, text["layers"], text["heads"], text["context_length"], bool(model.get("quick_gelu")))

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts as unit vectors (n, dim), as open_clip's ``encode_text`` does."""
        tokens = load_tokenize()(texts, context_length=self.context_length)
        ends = tokens.argmax(-1)  # the token of the end has the highest number
        # A position sees those before it, so that what stands behind the end of the longest text changes nothing.
        tokens = tokens[:, : int(ends.max()) + 1].to(self.tokens.device)
        states = F.embedding(tokens, self.tokens).float() + self.weights["positional_embedding"][: tokens.shape[1]]
        for layer in range(self.layers):
            states = self._block(states, f"transformer.resblocks.{layer}")
        pooled = self._norm(states[torch.arange(len(tokens)), ends], "ln_final")
        return F.normalize(pooled @ self.weights["text_projection"], dim=-1)

    def _block(self, states: Tensor, name: str) -> Tensor:
        """One layer: attention and a perceptron, each after a norm and added to the states (n, tokens, width)."""
        projected = self._linear(self._norm(states, f"{name}.ln_1"), f"{name}.attn.in_proj_")
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self._linear(attended.transpose(1, 2).flatten(2), f"{name}.attn.out_proj.")
        hidden = self._linear(self._norm(states, f"{name}.ln_2"), f"{name}.mlp.c_fc.")
        hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick_gelu else F.gelu(hidden)
        return states + self._linear(hidden, f"{name}.mlp.c_proj.")

    def _norm(self, states: Tensor, name: str) -> Tensor:
        weight = self.weights[f"{name}.weight"]
        return F.layer_norm(states, weight.shape, weight, self.weights[f"{name}.bias"])

    def _linear(self, states: Tensor, prefix: str) -> Tensor:
        return F.linear(states, self.weights[f"{prefix}weight"], self.weights[f"{prefix}bias"])


def tensor_shapes(dim: int, text: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a tower that gives vectors (n, dim), by name, for the sizes in ``TEXT_KEYS``."""
    width = text["width"]
    block = {
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        "mlp.c_fc.weight": (4 * width, width),
        "mlp.c_fc.bias": (4 * width,),
        "mlp.c_proj.weight": (width, 4 * width),
        "mlp.c_proj.bias": (width,),
    } | {f"ln_{number}.{part}": (width,) for number in (1, 2) for part in ("weight", "bias")}
    return {
        TOKENS: (text["vocab_size"], width),
        "positional_embedding": (text["context_length"], width),
        **{
            f"transformer.resblocks.{layer}.{name}": shape
            for layer in range(text["layers"])
            for name, shape in block.items()
        },
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        "text_projection": (width, dim),
    }


@cache
def load_tokenize() -> Callable[..., Tensor]:
    """open_clip's ``tokenize``, from the file of its module, which needs nothing of the package around it."""
    package = find_spec("open_clip")
    origin = package.origin if package else None
    spec = spec_from_file_location("open_clip_tokenizer", Path(origin).with_name("tokenizer.py")) if origin else None
    if spec is None or spec.loader is None:
        raise ImportError("open_clip: expected its tokenizer, found none; install open_clip_torch again")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    tokenize: Callable[..., Tensor] = module.tokenize
    return tokenize
