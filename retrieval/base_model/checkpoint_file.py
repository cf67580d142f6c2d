"""A base model in one safetensors file, as CompVis and SGM lay it out.

Prefixes: CompVis ``ldm/models/diffusion/ddpm.py``, SGM ``sgm/models/diffusion.py`` and ``modules/encoders/modules.py``;
of later models ComfyUI ``comfy/supported_models.py``.
"""

from pathlib import Path
from typing import Final

from loradex.retrieval.base_model.contents import describe_tensors, refuse_other_files
from loradex.retrieval.base_model.part import OPEN_CLIP, SGM, TRANSFORMERS, Part
from loradex.retrieval.base_model.unet_family import family_of_layers
from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.lora.family import UNETS
from loradex.retrieval.lora.header import Header
from loradex.retrieval.lora.regular_file import is_regular_file

DIFFUSION: Final = "model.diffusion_model."
VAES: Final = ("first_stage_model.", "vae.")
TEXT_ENCODERS: Final = (  # prefix, component, layout
    ("cond_stage_model.transformer.", "text_encoder", TRANSFORMERS),  # SD 1
    ("cond_stage_model.model.", "text_encoder", OPEN_CLIP),  # SD 2
    ("conditioner.embedders.0.transformer.", "text_encoder", TRANSFORMERS),  # SDXL
    ("conditioner.embedders.1.model.", "text_encoder_2", OPEN_CLIP),
    ("conditioner.embedders.0.model.", "text_encoder", OPEN_CLIP),  # SD 2 by SGM; SDXL's refiner
    ("text_encoders.clip_l.transformer.", "text_encoder", TRANSFORMERS),  # SD 3, Flux
    ("text_encoders.clip_g.transformer.", "text_encoder_2", TRANSFORMERS),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3", TRANSFORMERS),
)
ONLY_SECOND_ENCODER: Final = "sdxl-refiner"  # a pipeline of diffusers has no first one there
T5_IS_SECOND: Final = ("flux1", "chroma")


def read_checkpoint_file(path: Path) -> tuple[str, dict[str, Part]]:
    """The family and the parts of a checkpoint in one file.

    Raises:
        FileMissing: there is no such file.
        FileUnsafe: it is a pickle.
        FileCorrupt: its header contradicts itself.
        FileUnsupported: it is something else.
    """
    refuse_other_files(path)
    header = Header.read(path)
    encoders = [row for row in TEXT_ENCODERS if has_tensors(header, row[0])]
    if not has_tensors(header, DIFFUSION) or not encoders:
        folder = path.absolute().parent.parent
        is_part = is_regular_file(folder / "model_index.json")
        mend = f"name {folder}" if is_part else "name a whole checkpoint, or a folder of diffusers"
        raise FileUnsupported(
            f"{path}: expected a base model with its text encoders, found {describe_tensors(header)}; {mend}"
        )
    family = family_of_layers([header], DIFFUSION)
    prefixes = {component_of(component, family): (prefix, layout) for prefix, component, layout in encoders}
    prefixes["unet" if family in UNETS else "transformer"] = DIFFUSION, SGM
    vae = next((prefix for prefix in VAES if has_tensors(header, prefix)), None)
    if vae is not None:
        prefixes["vae"] = vae, SGM
    return family, {name: Part((path,), prefix, layout, None) for name, (prefix, layout) in prefixes.items()}


def has_tensors(header: Header, prefix: str) -> bool:
    """Whether a file has tensors whose names begin so."""
    return any(name.startswith(prefix) for name in header.tensors)


def component_of(component: str, family: str) -> str:
    """Diffusers' name of a text encoder, by its usual one."""
    if family == ONLY_SECOND_ENCODER or (component == "text_encoder_3" and family in T5_IS_SECOND):
        return "text_encoder_2"
    return component
