"""The family that a trainer wrote into the header of a file.

Sources of the spellings: kohya ``library/sai_model_spec.py`` and ``networks/*``, musubi-tuner
``utils/sai_model_spec.py``, ai-toolkit (``get_base_model_version`` of its models), OneTrainer and Stability AI's
ModelSpec.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

# beginnings of names, in lower case with "-" between words; a letter or a digit never follows
FAMILY_NAMES: Final = {
    "sd1": "sd1 sd15 sd-1 sd-v1 stable-diffusion-v1 stable-diffusion-1",
    "sd2": "sd2 sd21 sd-2 sd-v2 stable-diffusion-v2 stable-diffusion-2",
    "sdxl": "sdxl sd-xl stable-diffusion-xl",
    "sdxl-refiner": "sdxl-refiner stable-diffusion-xl-refiner stable-diffusion-xl-v1-refiner",
    "sd3": "sd3 sd35 sd-3 stable-diffusion-3 stable-diffusion-v3",
    "flux1": "flux flux1 flux-1",
    "flux2": "flux2 flux-2",
    "chroma": "chroma chroma1 chroma-1",
    "lumina2": "lumina lumina2 lumina-2",
    "qwen-image": "qwen qwen-image",
    "wan": "wan wan2 wan21 wan22",
    "hunyuan-video": "hunyuan-video hunyuanvideo hv",
    "hunyuan-video-1.5": "hunyuan-video-1-5 hunyuan-video-15 hunyuanvideo-1-5 hunyuan-video15 hv-1-5 hv15",
    "hunyuan-image": "hunyuan-image hunyuanimage",
    "z-image": "z-image zimage",
    "anima": "anima",
    "krea2": "krea2 krea-2",
    "hidream": "hidream hi-dream",
    "ltx-video": "ltx ltxv ltx-video",
    "ltx-2": "ltx2 ltx-2 ltxv2 ltx-video-2",
    "pixart": "pixart pixart-alpha pixart-sigma",
    "sana": "sana",
    "cogvideox": "cogvideox cogvideo cog-video",
    "auraflow": "auraflow aura-flow aura",
    "mochi": "mochi",
}
# models of no family here, some of which have the layers of one
OTHER_NAMES: Final = (
    "kolors framepack playground stable-cascade stable-video-diffusion hunyuan-dit cosmos kandinsky5 kandinsky-5 kandinsky "
    "omnigen omnigen2 cogview4 ideogram4 ideogram flex1 flex-1 flex2 flex-2 zeta-chroma sana-video flux3 flux-3 bria ovis longcat"
)
NAMES: Final = {
    name: family
    for family, names in (*FAMILY_NAMES.items(), *((name, name) for name in OTHER_NAMES.split()))
    for name in names.split()
}
VERSION_KEYS: Final = ("ss_base_model_version", "modelspec.architecture")
MODULE_KEY: Final = "ss_network_module"
MODULE: Final = re.compile(r"networks[._]lora[-_](.*)", re.DOTALL)  # networks.lora_flux
MAX_NAME_LENGTH: Final = 100


def family_in_metadata(metadata: Mapping[str, str]) -> str | None:
    """The family that the trainer wrote into the header, if any; a model of no family has its own name."""
    for key in VERSION_KEYS:
        if family := family_of_name(metadata.get(key, "")[:MAX_NAME_LENGTH]):
            return family
    if module := MODULE.match(metadata.get(MODULE_KEY, "")[:MAX_NAME_LENGTH]):
        return family_of_name(module[1])
    return None


@lru_cache(2**8)
def family_of_name(text: str) -> str | None:
    """The family whose name a text begins with, the longest counting; None if there is none."""
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").split("-")
    beginnings = ("-".join(words[:count]) for count in range(len(words), 0, -1))
    return next((NAMES[name] for name in beginnings if name in NAMES), None)
