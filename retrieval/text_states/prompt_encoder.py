"""Texts to the states that the U-Net of a base model attends to."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.base_model.part import OPEN_CLIP, TRANSFORMERS
from loradex.retrieval.errors import CheckpointError, FileCorrupt
from loradex.retrieval.lora import Update
from loradex.retrieval.text_states.configs import EncoderConfig, config_from_shapes, read_config, unusable
from loradex.retrieval.text_states.families import FAMILIES, OTHER_STATES, EncoderFacts, FamilyFacts
from loradex.retrieval.text_states.prefixes import Prefix, register_attention, shared_length
from loradex.retrieval.text_states.tokens import tokenize_texts
from loradex.retrieval.text_states.updates import apply_updates
from loradex.retrieval.text_states.weights import EncoderTensors

BATCH_TOKENS: Final = 4096  # run through a model at once


@dataclass(frozen=True, slots=True)
class Encoder:
    """One text encoder in memory.

    Attributes:
        model: transformers' ``CLIPTextModel`` without the layers and the norm that the U-Net sees nothing of.
        saved_layers: how many layers the base model has.
        digest: of its stored tensors.
    """

    facts: EncoderFacts
    model: Any
    saved_layers: int
    digest: str

    @property
    def width(self) -> int:
        """Of its states."""
        return int(self.model.config.hidden_size)


class PromptEncoder:
    """The text encoders of one base model.

    Attributes:
        family: of the base model.
        length: positions that its U-Net attends to.
        width: of the states of all encoders side by side.
        device: of the weights and of all results.
        dtype: in which linear maps are computed.
        fingerprint: digest of family, ``dtype`` and the weights that were read; states of one fingerprint are equal.
    """

    def __init__(
        self, family: str, facts: FamilyFacts, encoders: Sequence[Encoder], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Put encoders together; see ``load``."""
        self.family, self.device, self.dtype = family, device, dtype
        self.length = facts.length
        self._facts, self._encoders = facts, tuple(encoders)
        self.width = sum(encoder.width for encoder in encoders)
        parts = (family, str(dtype), *(encoder.digest for encoder in encoders))
        self.fingerprint = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:20]

    @classmethod
    def load(
        cls, base: BaseModel, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> "PromptEncoder":
        """Read the text encoders of a base model, and nothing else of it.

        Args:
            base: the base model.
            device: of the weights and of all results.
            dtype: in which linear maps are computed; norms, sums and results are float32. bfloat16 halves the memory,
                is off by 1 %, and faster only where the processor computes in it.

        Raises:
            CheckpointError: the family has no states that are read here, or a text encoder is missing or malformed.
            FileError: a file is missing, unsafe or corrupt.
        """
        facts = FAMILIES.get(base.family)
        if facts is None:
            attends = OTHER_STATES.get(base.family, "states that are not known")
            raise CheckpointError(
                f"{base.path}: expected a base model of {', '.join(FAMILIES)}, found {base.family}, "
                f"which attends to {attends}: not read; words cannot be read for this family"
            )
        encoders = [load_encoder(base, encoder, facts, torch.device(device), dtype) for encoder in facts.encoders]
        return cls(base.family, facts, encoders, torch.device(device), dtype)

    @property
    def models(self) -> dict[str, Any]:
        """Models of transformers by their names in diffusers, with the layers that the U-Net sees something of."""
        return {encoder.facts.component: encoder.model for encoder in self._encoders}

    @property
    def pads(self) -> list[int]:
        """The token behind the end of a text, for each encoder."""
        return [encoder.facts.pad for encoder in self._encoders]

    def tokenize(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the tokens of texts for each encoder (n, length), int64, with start, end and the family's padding.

        A text that is too long is cut, as pipelines cut it.
        """
        context, facts = self._facts.context, [encoder.facts for encoder in self._encoders]
        return [tokenize_texts(texts, context, one.pad, one.special)[:, : self.length] for one in facts]

    @torch.inference_mode()
    def states(self, tokens: Sequence[Tensor], length: int | None = None) -> Tensor:
        """Return what the U-Net attends to (n, length, width), float32.

        Args:
            tokens: of n texts for each encoder (n, positions), as ``tokenize`` gives them or cut to fewer positions.
            length: positions that are wanted, at most those of the tokens (default). Attention looks back only, so that
                a cut changes no state before it. Beginnings that the texts of a batch share are computed once.

        Raises:
            FileCorrupt: the weights, or updates that are added to them, give NaN or infinity.
        """
        rows, positions = tokens[0].shape
        length = positions if length is None else length
        states = torch.empty(rows, length, self.width, device=self.device)
        batch = BATCH_TOKENS // max(1, length - shared_length(tokens[0][:, :length]))
        for first in range(0, rows, batch):
            left = 0
            for encoder, encoder_tokens in zip(self._encoders, tokens, strict=True):
                some = encoder_tokens[first : first + batch, :length].to(self.device)
                with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    states[first : first + batch, :, left : left + encoder.width] = run(encoder.model, some)
                left += encoder.width
            if not states[first : first + batch].isfinite().all():
                raise FileCorrupt(
                    "text encoder: expected finite states, found NaN or infinity; its weights, or the file's update of "
                    "them, are too large"
                )
        return states

    def with_updates(self, updates: Mapping[str, Update]) -> AbstractContextManager[tuple[str, ...]]:
        """Within the context, states go through a LoRA's own updates of the text encoders; for one thread at a time.

        Args:
            updates: by layer (``text_encoder.text_model.encoder.layers.0.self_attn.q_proj``), as ``LoraFile.updates``;
                those of a U-Net are passed over.

        Yields:
            The layers of text encoders that are not added, as the base lacks them or they are no linear maps
            (embeddings). Layers behind the states, which change nothing, are not among them.

        Raises:
            FileUnsupported: a layer has another shape in the base, on entering the context.
        """
        saved = {encoder.facts.component: encoder.saved_layers for encoder in self._encoders}
        return apply_updates(self.models, saved, updates)


def load_encoder(
    base: BaseModel, facts: EncoderFacts, family: FamilyFacts, device: torch.device, dtype: torch.dtype
) -> Encoder:
    """Read one text encoder.

    Raises:
        CheckpointError, FileError: as ``PromptEncoder.load``.
    """
    part = base.parts.get(facts.component)
    if part is None or not part.files:
        raise unusable(base.path, f"a {facts.component} in it", "none")
    tensors = EncoderTensors(part)
    of_transformers = (
        part.config if part.layout == TRANSFORMERS else None
    )  # open_clip's says no more than shapes and facts do
    config = read_config(of_transformers) if of_transformers else config_from_shapes(tensors.shapes, facts, base.path)
    saved, positions = config.sizes["num_hidden_layers"], config.sizes["max_position_embeddings"]
    layers = saved - facts.unused_layers[part.layout == OPEN_CLIP]
    if layers < 1:
        raise unusable(base.path, f"more than {saved - layers} layers in {facts.component}", str(saved))
    if positions < family.context:
        raise unusable(base.path, f"a {facts.component} of {family.context} positions", str(positions))
    model = empty_model(config, layers, facts.normed)
    in_dtype = {f"{name}.weight": dtype for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    weights, digest = tensors.load(model.state_dict(), in_dtype)
    model.load_state_dict(weights, assign=True)
    model.embeddings.position_ids = torch.arange(positions)[None]  # no weight, so it is still without numbers
    return Encoder(facts, model.to(device).eval().requires_grad_(False), saved, digest)


def empty_model(config: EncoderConfig, layers: int, normed: bool) -> Any:
    """Build a ``CLIPTextModel`` whose tensors have shapes and no numbers.

    Args:
        config: of the encoder.
        layers: how many of its layers are run.
        normed: whether the final norm is.
    """
    from transformers import CLIPTextConfig, CLIPTextModel  # takes longer to import than torch

    sizes = {**config.sizes, "num_hidden_layers": layers}
    settings = CLIPTextConfig(**sizes, hidden_act=config.activation, layer_norm_eps=config.norm_epsilon)
    settings._attn_implementation = register_attention()
    with torch.device("meta"):
        model = CLIPTextModel(settings)
    model = getattr(model, "text_model", model)  # the model itself since transformers 5.6
    if not normed:
        model.final_layer_norm = nn.Identity()
    return model


def run(model: Any, tokens: Tensor) -> Tensor:
    """Return the states (n, length, width) that ``model`` gives for tokens (n, length)."""
    shared = shared_length(tokens)
    if not shared:
        return model(tokens).last_hidden_state
    prefix = Prefix()
    before = model(tokens[:1, :shared], prefix=prefix).last_hidden_state
    positions = torch.arange(shared, tokens.shape[1], device=tokens.device)[None]
    behind = model(tokens[:, shared:], position_ids=positions, prefix=prefix).last_hidden_state
    return torch.cat([before.expand(len(tokens), -1, -1), behind], 1)
