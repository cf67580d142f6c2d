"""What a file is that is no base model, in the words of an error message."""

from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileMissing, FileUnsafe, FileUnsupported
from loradex.retrieval.lora.first_bytes import FIRST_BYTES, recognise
from loradex.retrieval.lora.formats import split_tensor_name
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.layer_names import translate_names
from loradex.retrieval.lora.other_weights import TRANSFORMER, kind_of_weights
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.regular_file import open_regular_file

CONVERT: Final = (
    "convert it where you trust it (ComfyUI: Load Checkpoint, then Save Checkpoint; A1111: Checkpoint Merger), "
    "or download a .safetensors"
)
MENDS: Final = {  # of other kinds of files, where a base model is expected
    "gguf": "name a checkpoint as safetensors, or a folder of diffusers",
    "json": "name the folder of diffusers, or a checkpoint in one file",
}
MIN_LORA_SHARE: Final = 0.5  # of the names that a LoRA's format explains


def refuse_other_files(path: Path) -> None:
    """Refuse what people mistake for a checkpoint, by the beginning of the file.

    Raises:
        FileMissing: there is no such file, or it is empty.
        FileUnsafe: it is a pickle, or an archive that may hold one.
        FileUnsupported: it is another kind of file.
    """
    with open_regular_file(path) as file:
        start = file.read(FIRST_BYTES)
    if not start:
        raise FileMissing(f"{path}: expected a base model, found an empty file; download it again")
    if start[8:9] == b"{":  # a header, whose length may look like the magic number of a pickle
        return
    other = recognise(start)
    if other and other.runs_code:
        raise FileUnsafe(
            f"{path}: expected safetensors, found {other.description}, which was not opened as it could run code; {CONVERT}"
        )
    if other:
        mend = MENDS.get(other.name, other.mend)
        raise FileUnsupported(f"{path}: expected a base model, found {other.description}; {mend}")


def describe_tensors(header: Header) -> str:
    """What a safetensors file is that is no base model."""
    names = list(header.tensors)
    roles = [tensor.role for tensor in map(split_tensor_name, names) if tensor is not None]
    if len(roles) - roles.count("embedding") > MIN_LORA_SHARE * len(names):
        return "a LoRA"
    kind = kind_of_weights(header.tensors)
    if kind and kind != TRANSFORMER:
        return kind.description
    modules = {
        name.removesuffix(".weight"): (info.shape[0], info.shape[1])
        for name, info in header.tensors.items()
        if name.endswith(".weight") and len(info.shape) == 2
    }
    if modules and (architectures := translate_names(modules).architectures):
        return f"a transformer alone ({architectures[0]})"
    return f"{len(names)} tensors such as {printable(names[0])}" if names else "no tensors"
