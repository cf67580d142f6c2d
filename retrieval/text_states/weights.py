"""The tensors of a text encoder, read by name from safetensors files; no other byte of those files is read.

transformers' ``CLIPTextModel`` runs every encoder, so its names are asked for, and found under the names that a file
has: transformers' own, with or without ``text_model.``, or open_clip's, which keeps the projections of queries, keys
and values of a layer in one tensor.
"""

import hashlib
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from loradex.retrieval.base_model import Part
from loradex.retrieval.base_model.part import OPEN_CLIP
from loradex.retrieval.errors import CheckpointError, FileCorrupt
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.text_states.configs import unusable

TEXT_MODEL: Final = "text_model."  # before all names in transformers up to version 5.5
FLOATS: Final = ("F64", "F32", "F16", "BF16")
MAX_WEIGHT: Final = 1e12  # as for LoRAs
OPEN_CLIP_NAMES: Final = {  # transformers' names -> open_clip's, before or in place of the last part of a name
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
IN_PROJECTIONS: Final = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # in the order of their rows


class EncoderTensors:
    """The tensors of one text encoder, whose headers were read."""

    def __init__(self, part: Part) -> None:
        """Read the headers.

        Raises:
            FileError: a file is missing, unsafe or corrupt.
        """
        self.part = part
        self._files: dict[str, tuple[Header, str]] = {}  # by name without prefix: the file, and the name in it
        for header in map(Header.read, part.files):
            for name in header.tensors:
                if name.startswith(part.prefix):
                    self._files[name.removeprefix(part.prefix).removeprefix(TEXT_MODEL)] = header, name

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors, by their names without prefix."""
        return {name: header.tensors[stored].shape for name, (header, stored) in self._files.items()}

    def load(self, expected: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> tuple[dict[str, Tensor], str]:
        """Read the tensors of a model, one after the other.

        Args:
            expected: the tensors of the model by transformers' names, of which only the shapes are used.
            dtypes: of the result, where it is not float32.

        Returns:
            The tensors by transformers' names, and a digest of their stored bytes.

        Raises:
            CheckpointError: one is missing, or has another shape or an odd dtype.
            FileCorrupt: one holds NaN, infinity or numbers beyond ``MAX_WEIGHT``, or the file changed meanwhile.
        """
        sources = {name: self._source(name) for name in expected}
        for name, (stored, row_block) in sources.items():
            rows, *others = expected[name].shape
            self._check(stored, (rows * (1 if row_block is None else len(IN_PROJECTIONS)), *others))
        digest = hashlib.sha256()
        loaded: dict[str, Tensor] = {}
        for stored in sorted({stored for stored, _ in sources.values()}):
            tensor = self._read(stored, digest)
            for name in (name for name, source in sources.items() if source[0] == stored):
                row_block = sources[name][1]
                rows_of_it = tensor if row_block is None else tensor.chunk(len(IN_PROJECTIONS))[row_block]
                loaded[name] = rows_of_it.to(dtypes.get(name, torch.float32))
        return loaded, digest.hexdigest()

    def _source(self, name: str) -> tuple[str, int | None]:
        """Under which name the files have a tensor of transformers, and which third of its rows it is, if not all."""
        if self.part.layout != OPEN_CLIP:
            return name, None
        layer = name.replace("encoder.layers.", "transformer.resblocks.", 1)
        for number, projection in enumerate(IN_PROJECTIONS):
            if f".{projection}." in layer:
                return layer.replace(f"{projection}.", "attn.in_proj_"), number
        for ours, theirs in OPEN_CLIP_NAMES.items():
            layer = layer.replace(ours, theirs)
        return layer, None

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        header, stored = self._files.get(name, (None, name))
        path = header.path if header else self.part.files[0]
        where = f"tensor {printable(self.part.prefix + name)} of shape {shape}"
        if header is None:
            raise unusable(path, where, "none of that name")
        info = header.tensors[stored]
        if info.shape != shape:
            raise unusable(path, where, f"shape {info.shape}")
        if info.dtype not in FLOATS:
            raise CheckpointError(
                f"{path}: tensor {printable(stored)}: expected {', '.join(FLOATS)}, found {info.dtype}; "
                "convert the text encoder to float16"
            )

    def _read(self, name: str, digest: "hashlib._Hash") -> Tensor:
        """Read a tensor as float32, and add its stored bytes to a digest."""
        header, stored = self._files[name]
        tensor = header.load([stored])[stored]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(torch.uint8).numpy().data)
        tensor = tensor.float()
        least, most = tensor.aminmax()  # NaN where any number is
        if not (least >= -MAX_WEIGHT and most <= MAX_WEIGHT):
            raise FileCorrupt(
                f"{header.path}: tensor {printable(stored)}: expected finite weights up to {MAX_WEIGHT:.0e}, "
                "found NaN, infinity or larger ones; download it again"
            )
        return tensor
