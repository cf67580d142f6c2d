"""The nodes: *Loradex Search* and *Loradex Words*.

In the form that old and new versions of ComfyUI take (https://docs.comfy.org/custom-nodes/backend/server_overview).
Nodes run in ComfyUI's worker thread; its server and the canvas go on meanwhile. Their widgets hold plain values, so
that a saved workflow has neither an address nor a login.
"""

from __future__ import annotations

import hashlib
import json
from io import BytesIO
from itertools import islice
from typing import Any

import folder_paths
from PIL import Image

from .connection import Server
from .errors import LoradexError
from .known import describe, model_id
from .names import FOLDER, LoraNames, lora_names
from .search import Found, installed

CATEGORY = "loaders/loradex"
NO_LORA = "(none)"
LISTED = 24  # hits that a node lists
MAX_INDEX = 100
MAX_PAGES = 20  # of hits, for those that are in ComfyUI's folders
MAX_PICTURES = 4
PICTURE_SIZE = 512  # pixels; the server looks at fewer


class LoraName(str):
    """The type of an output that fits the combo boxes of loaders, whose type is the list of all files.

    ComfyUI compares types with ``!=`` (``comfy_execution/validation.py``, and ``execution.py`` before it).
    """

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Whether it fits the type of an input: a list of files, the same name, or any type."""
        return isinstance(other, list) or (isinstance(other, str) and str(other) in (str(self), "*"))

    def __ne__(self, other: object) -> bool:
        """Whether it does not fit."""
        return not self == other


COMBO = LoraName("COMBO")


class LoradexSearch:
    """Finds a LoRA by what it draws."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Finds LoRAs in your folders by what their weights say, with a running `loradex serve --api`."
    FUNCTION = "search"
    RETURN_TYPES = (COMBO, "FLOAT", "STRING", "FLOAT", "STRING")
    RETURN_NAMES = ("lora_name", "strength", "trigger_words", "score", "hits")
    OUTPUT_TOOLTIPS = (
        "The file, for the lora_name of a loader.",
        "The strength of this node, for a loader.",
        "Stated trigger words, else those read from its weights.",
        "Log-odds that it draws what was asked: above 0 is more likely than not. 0 where its name alone was found.",
        "All hits, one a line; index chooses among them.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs."""
        text = {"default": "", "multiline": False}
        return {
            "required": {
                "text": ("STRING", {**text, "tooltip": "What the LoRA should draw."}),
                "minus": ("STRING", {**text, "tooltip": "What it should not draw."}),
                "family": ("STRING", {**text, "tooltip": "Only LoRAs of this family: sd1, sdxl, flux1 … Empty: all."}),
                "index": ("INT", {"default": 1, "min": 1, "max": MAX_INDEX, "tooltip": "Which hit: 1 is the best."}),
                "strength": ("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01}),
            },
            "optional": {
                "like": (
                    [NO_LORA, *folder_paths.get_filename_list(FOLDER)],
                    {"default": NO_LORA, "tooltip": "A LoRA that the hits should be like."},
                ),
                "image": ("IMAGE", {"tooltip": "A picture that the hits should be like."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, like: str | None = None) -> bool | str:
        """Whether the LoRA is there, with slashes of either kind."""
        return True if like in (None, NO_LORA) or lora_names().resolve(str(like)) else missing(str(like))

    @classmethod
    def IS_CHANGED(
        cls,
        text: str | None = None,
        minus: str | None = None,
        family: str | None = None,
        index: int | None = None,
        strength: float | None = None,
        like: str | None = None,
        image: Any = None,
    ) -> str:
        """A key of the answer, so that what follows is made again only if other LoRAs are found than the last time."""
        if image is not None or text is None or minus is None or family is None or index is None:
            return ""  # linked inputs are not known yet
        try:
            hits = find(text, minus, family, index, like or NO_LORA, None)
        except LoradexError as error:
            return error.message
        return hashlib.sha256(json.dumps([hit.document() for hit in hits]).encode()).hexdigest()

    def search(
        self,
        text: str,
        minus: str,
        family: str,
        index: int,
        strength: float,
        like: str = NO_LORA,
        image: Any = None,
    ) -> dict[str, Any]:
        """The chosen hit.

        Raises:
            LoradexError: there is none, or the server cannot answer; ComfyUI shows the message.
        """
        hits = find(text, minus, family, index, like, image)
        if len(hits) < index:
            raise LoradexError(
                "NoHit",
                f"Loradex Search: expected {index} LoRAs of ComfyUI's folders among the hits, found {len(hits)}; "
                "index those folders with `loradex index`, or ask for something else",
                "loradex index",
            )
        hit = hits[index - 1]
        lines = [each.line(number) for number, each in enumerate(hits, 1)]
        values = (hit.file, strength, ", ".join(hit.trigger_words), hit.score or 0.0, "\n".join(lines))
        return {"ui": {"loradex": lines}, "result": values}


class LoradexWords:
    """Shows trigger words of a LoRA, and what it draws."""

    CATEGORY = CATEGORY
    DESCRIPTION = "Trigger words of a LoRA and what it draws, read from its weights by a running `loradex serve --api`."
    FUNCTION = "describe"
    RETURN_TYPES = ("STRING", "STRING", "FLOAT", "STRING")
    RETURN_NAMES = ("trigger_words", "draws", "probability", "details")
    OUTPUT_TOOLTIPS = (
        "Stated trigger words, else those read from its weights.",
        "What it draws, most likely; empty if that is not known.",
        "How likely that is; 0 if it is not known.",
        "All of it with probabilities, one a line.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs."""
        return {
            "required": {
                "lora_name": (folder_paths.get_filename_list(FOLDER), {"tooltip": "The LoRA."}),
                "count": ("INT", {"default": 5, "min": 1, "max": 20, "tooltip": "How many words."}),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, lora_name: str | None = None) -> bool | str:
        """Whether the LoRA is there, with slashes of either kind."""
        return True if lora_name is None or lora_names().resolve(lora_name) else missing(lora_name)

    def describe(self, lora_name: str, count: int) -> dict[str, Any]:
        """What is known of the LoRA.

        Raises:
            LoradexError: it is missing, or the server cannot answer; ComfyUI shows the message.
        """
        names = lora_names()
        known = describe(Server.from_settings(), names, resolved(names, lora_name), count)
        draws, probability = known.draws[0] if known.draws else ("", None)
        lines = known.lines()
        values = (", ".join(known.trigger_words), draws, probability or 0.0, "\n".join(lines))
        return {"ui": {"loradex": lines}, "result": values}


def find(text: str, minus: str, family: str, index: int, like: str, image: Any) -> list[Found]:
    """The hits of a node that are in ComfyUI's folders, at least ``index`` if there are as many.

    Raises:
        LoradexError: nothing is asked for, the LoRA is missing, or the server cannot answer.
    """
    names, server = lora_names(), Server.from_settings()
    query: list[tuple[str, object]] = [("text", text.strip())] if text.strip() else []
    query += [("minus", minus.strip())] if minus.strip() else []
    query += [("family", family.strip())] if family.strip() else []
    if like and like != NO_LORA:
        query.append(("model", model_id(server, names.paths[resolved(names, like)])))
    pictures = [] if image is None else as_pngs(image)
    if not pictures and not any(field in ("text", "minus", "model") for field, _ in query):
        raise LoradexError("NoQuery", "Loradex Search: expected a text, a LoRA or a picture, found none; write a text")
    return list(islice(installed(server, names, query, pictures, MAX_PAGES), max(index, LISTED)))


def resolved(names: LoraNames, written: str) -> str:
    """The name of a LoRA as loaders take it.

    Raises:
        LoradexError: there is none.
    """
    name = names.resolve(written)
    if name is None or name not in names.paths:
        raise LoradexError("FileMissing", missing(written))
    return name


def missing(name: str) -> str:
    """The message about a LoRA that is not there."""
    return f"LoRA: expected one of ComfyUI's folders, found no {name[:200]!r}; choose another"


def as_pngs(image: Any) -> list[bytes]:
    """Pictures of a tensor (batch, height, width, channels) with values from 0 to 1, scaled down, as PNG."""
    pictures = []
    for each in image[:MAX_PICTURES]:
        pixels = (each[..., :3].clamp(0, 1) * 255).round().byte().cpu().numpy()
        picture = Image.fromarray(pixels)
        picture.thumbnail((PICTURE_SIZE, PICTURE_SIZE))
        picture.save(buffer := BytesIO(), "PNG")
        pictures.append(buffer.getvalue())
    return pictures
