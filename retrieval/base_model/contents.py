"""What a file is that is no base model, in the words of an error message."""

from pathlib import Path
from typing import Final

from loradex.retrieval.errors import FileMissing, FileUnsafe, FileUnsupported
from loradex.retrieval.lora.formats import split_tensor_name
from loradex.retrieval.lora.header import OTHER_CONTAINERS, Header
from loradex.retrieval.lora.layer_names import translate_names
from loradex.retrieval.lora.problems import printable
from loradex.retrieval.lora.regular_file import open_regular_file

SNIFFED_BYTES: Final = 512
CONVERT: Final = (
    "convert it where you trust it (ComfyUI: Load Checkpoint, then Save Checkpoint; A1111: Checkpoint Merger), "
    "or download a .safetensors"
)
OTHER_FILES: Final = (  # beginning in lower case, what it is, how to mend
    (b"version https://git-lfs", "a pointer of Git LFS instead of the weights", "run `git lfs pull` in its repository"),
    (b"<!doctype html", "a web page", "download it again, signed in where the site asks for it"),
    (b"<html", "a web page", "download it again, signed in where the site asks for it"),
    (b"<?xml", "an XML document", "download it again"),
    (b"gguf", "GGUF, a quantised model", "name a checkpoint as safetensors, or a folder of diffusers"),
    (b"{", "a JSON document", "name the folder of diffusers, or a checkpoint in one file"),
)
KINDS: Final = (  # beginning of names, what the file is; of several the first is named
    ("control_model.", "a ControlNet"),
    ("controlnet_", "a ControlNet"),
    ("input_hint_block.", "a ControlNet"),
    ("model.diffusion_model.", "a diffusion model alone"),
    ("diffusion_model.", "a diffusion model alone"),
    ("first_stage_model.", "a VAE"),
    ("cond_stage_model.", "text encoders alone"),
    ("conditioner.", "text encoders alone"),
    ("text_encoders.", "text encoders alone"),
    ("text_model.", "a text encoder alone"),
    ("vision_model.", "a CLIP"),
    ("visual.", "a CLIP"),
    ("encoder.block.", "a text encoder alone"),
    ("encoder.down", "a VAE"),
    ("decoder.up", "a VAE"),
    ("input_blocks.", "a U-Net alone"),
    ("down_blocks.", "a U-Net alone"),
    ("emb_params", "a textual inversion"),
    ("clip_l", "a textual inversion"),
    ("clip_g", "a textual inversion"),
    ("<", "a textual inversion"),
)
MIN_LORA_SHARE: Final = 0.5  # of the names that a LoRA's format explains


def refuse_other_files(path: Path) -> None:
    """Refuse what people mistake for a checkpoint, by the beginning of the file.

    Raises:
        FileMissing: there is no such file, or it is empty.
        FileUnsafe: it is a pickle, or an archive that may hold one.
        FileUnsupported: it is another kind of file.
    """
    with open_regular_file(path) as file:
        start = file.read(SNIFFED_BYTES)
    if not start:
        raise FileMissing(f"{path}: expected a base model, found an empty file; download it again")
    if start[8:9] == b"{":  # a header, whose length may look like the magic number of a pickle
        return
    for magic, kind in OTHER_CONTAINERS.items():
        if start.startswith(magic):
            raise FileUnsafe(
                f"{path}: expected safetensors, found {kind}, which was not opened as it could run code; {CONVERT}"
            )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, kind, mend in OTHER_FILES:
        if text.startswith(beginning):
            raise FileUnsupported(f"{path}: expected a base model, found {kind}; {mend}")


def describe_tensors(header: Header) -> str:
    """What a safetensors file is that is no base model."""
    names = list(header.tensors)
    roles = [tensor.role for tensor in map(split_tensor_name, names) if tensor is not None]
    if len(roles) - roles.count("embedding") > MIN_LORA_SHARE * len(names):
        return "a LoRA"
    for beginning, kind in KINDS:
        if any(name.startswith(beginning) for name in names):
            return kind
    modules = {
        name.removesuffix(".weight"): (info.shape[0], info.shape[1])
        for name, info in header.tensors.items()
        if name.endswith(".weight") and len(info.shape) == 2
    }
    if modules and (architectures := translate_names(modules).architectures):
        return f"a transformer alone ({architectures[0]})"
    return f"{len(names)} tensors such as {printable(names[0])}" if names else "no tensors"
