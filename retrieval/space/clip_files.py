"""The files of a CLIP on this machine: found by a name of open_clip, checked, and loaded without the network.

Weights are read from safetensors alone. open_clip itself would fetch what is missing, and would take a pickle
(``.bin``, ``.pt``) where a repository has no safetensors; neither can happen here, because open_clip is given a config
and a file, never a name. Of a config, which may be a stranger's, only what describes a CLIP is used: nothing in it can
name code or another repository.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from safetensors import SafetensorError

from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.space.text_tower import CONFIG_FILE, WEIGHTS_FILE

LOCAL_FOLDER: Final = "local-dir:"
HUB: Final = "hf-hub:"
SAFETENSORS: Final = ".safetensors"
WEIGHTS_FILES: Final = (WEIGHTS_FILE, "open_clip_pytorch_model.safetensors")  # in order of preference
TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)  # of tokenizers of transformers, which SigLIPs have; data, no code
TOKENIZER_SETTINGS: Final = {"clean", "strip_sep_token", "language"}  # of a config, that open_clip's tokenizers take
MAX_CONFIG: Final = 2**20  # bytes
EXAMPLES: Final = "ViT-B-32-quickgelu/openai, hf-hub:OWNER/NAME, a folder, or ViT-B-32-quickgelu/FILE.safetensors"

GetFile = Callable[[str, str], Path | None]  # a repository of the hub and a file's name -> the file, if it is there


@dataclass(frozen=True, slots=True)
class ClipSource:
    """What a name of a CLIP stands for, before any file is looked for.

    Attributes:
        name: as it was given.
        config: with ``model_cfg`` and ``preprocess_cfg``; None if it is a file of the repository or of the folder.
        repository: of the hub, that has the weights; None if they are on this machine.
        folder: that has config and weights.
        weights: the file of weights.
        tokenizer: the repository of the hub whose tokenizer is used, if it is none of open_clip's own.
    """

    name: str
    config: dict[str, Any] | None = None
    repository: str | None = None
    folder: Path | None = None
    weights: Path | None = None
    tokenizer: str | None = None


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """All files that a CLIP is loaded from.

    Attributes:
        config: with ``model_cfg`` and ``preprocess_cfg``, checked.
        weights: a safetensors file.
        tokenizer: files of a tokenizer of transformers; empty for those of open_clip.
        of_hub: whether the weights lie in the hub's cache, where no file is ever changed.
    """

    config: dict[str, Any]
    weights: Path
    tokenizer: tuple[Path, ...] = ()
    of_hub: bool = False

    def write(self, folder: Path) -> None:
        """Write all files into a folder, where ``local-dir:`` finds them.

        Raises:
            CheckpointError: they cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.write_small_files(folder)
            target, weights = folder / WEIGHTS_FILE, self.weights.resolve()
            try:
                if not self.of_hub:
                    raise OSError  # whoever changes their own file later would change this one
                os.link(weights, target)
            except OSError:
                shutil.copyfile(weights, target)
        except OSError as error:
            raise CheckpointError(
                f"{folder}: expected a place to write to, found: {error}; name another in $LORADEX_ENCODER"
            ) from None

    def write_small_files(self, folder: Path) -> None:
        """Write all files but the weights into a folder that exists."""
        (folder / CONFIG_FILE).write_text(json.dumps(self.config, indent=1), "utf-8")
        for path in self.tokenizer:
            shutil.copyfile(path, folder / path.name)

    def load(self, name: str, device: torch.device | str = "cpu") -> tuple[Any, Any, Any]:
        """Return the model, the tokenizer and the transform of pictures, as open_clip makes them.

        Raises:
            CheckpointError: the files are no CLIP that open_clip knows, or do not belong together.
        """
        import open_clip  # takes longer to import than all else that a search by text needs

        root_level = logging.getLogger().level
        try:
            logging.getLogger().setLevel(logging.ERROR)  # open_clip reports each load through the root logger
            with TemporaryDirectory(prefix="loradex-clip-") as folder:
                self.write_small_files(Path(folder))
                model, _, preprocess = open_clip.create_model_and_transforms(
                    f"{LOCAL_FOLDER}{folder}",
                    load_weights=False,
                    pretrained_image=False,
                    pretrained_text=False,
                    device=device,
                )
                safe = {"trust_remote_code": False, "local_files_only": True} if self.tokenizer else {}
                tokenizer = open_clip.get_tokenizer(f"{LOCAL_FOLDER}{folder}", **safe)
            open_clip.load_checkpoint(model, str(self.weights))
        except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
            raise CheckpointError(
                f"text encoder {name}: open_clip could not load it: {first_line(error)}; check the name and the files"
            ) from None
        finally:
            logging.getLogger().setLevel(root_level)
        return model.eval().requires_grad_(False), tokenizer, preprocess


def parse_clip_name(name: str) -> ClipSource:
    """Find out what the name of a CLIP stands for; only the list in open_clip and the disk are looked at.

    Args:
        name: ``ARCHITECTURE/PRETRAINED`` of open_clip's list, ``hf-hub:OWNER/NAME``, a folder with a config and weights
            (also ``local-dir:FOLDER``), or ``ARCHITECTURE/FILE.safetensors``.

    Raises:
        CheckpointError: it stands for nothing, or for weights that are no safetensors file.
    """
    if name.startswith(HUB):
        return ClipSource(name, repository=name.removeprefix(HUB))
    if name.startswith(LOCAL_FOLDER) or Path(name).is_dir():
        return ClipSource(name, folder=Path(name.removeprefix(LOCAL_FOLDER)))
    import open_clip

    architecture, _, pretrained = name.partition("/")
    model = open_clip.get_model_config(architecture) if ":" not in architecture else None
    if model is None:
        raise CheckpointError(f"text encoder {name}: expected a CLIP that open_clip knows, found none; name {EXAMPLES}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    tokenizer = model["text_cfg"].get("hf_tokenizer_name")
    if open_clip.is_pretrained_cfg(architecture, pretrained):
        settings = open_clip.get_pretrained_cfg(architecture, pretrained)
        if bool(settings.get("quick_gelu")) != bool(model.get("quick_gelu")):
            other = (
                f"{architecture}-quickgelu" if settings.get("quick_gelu") else architecture.removesuffix("-quickgelu")
            )
            raise CheckpointError(
                f"text encoder {name}: expected weights of this architecture, found those of {other}; name {other}/{pretrained}"
            )
        repository = "/".join(str(settings["hf_hub"]).split("/")[:2])
        return ClipSource(name, open_clip_config(model, settings), repository, tokenizer=tokenizer)
    weights = Path(pretrained)
    if not pretrained or not weights.is_file():
        raise CheckpointError(
            f"text encoder {name}: expected weights as a file or one of {', '.join(tags) or 'none'}, found {pretrained!r}; name {EXAMPLES}"
        )
    settings = open_clip.get_pretrained_cfg(architecture, tags[0]) if tags else {}
    return ClipSource(name, open_clip_config(model, settings), weights=weights, tokenizer=tokenizer)


def open_clip_config(model: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a CLIP of open_clip's list, as ``open_clip_config.json`` has it."""
    keys = ("mean", "std", "interpolation", "resize_mode")
    return {"model_cfg": dict(model), "preprocess_cfg": {key: settings[key] for key in keys if key in settings}}


def find_clip(source: ClipSource, get_file: GetFile) -> ClipFiles | None:
    """Return the files of a CLIP, or None if one of them is not there.

    Args:
        source: of the files.
        get_file: finds a file of a repository.

    Raises:
        CheckpointError: the config is damaged or asks for what is not loaded here, or the weights are no safetensors.
    """
    if source.repository:
        get = lambda file: get_file(str(source.repository), file)  # noqa: E731
    elif source.folder:
        folder = source.folder
        get = lambda file: folder / file if (folder / file).is_file() else None  # noqa: E731
    else:
        get = lambda file: None  # noqa: E731
    config_file = None if source.config else get(CONFIG_FILE)
    config = source.config or (read_config(config_file) if config_file else None)
    weights = source.weights or next(filter(None, map(get, WEIGHTS_FILES)), None)
    if config is None or weights is None:
        return None
    if weights.suffix != SAFETENSORS:
        raise CheckpointError(
            f"{weights}: expected weights as safetensors, found another file; convert it, no pickle is read"
        )
    config = checked_config(config, source.name)
    text = config["model_cfg"]["text_cfg"]
    if not text.get("hf_tokenizer_name"):
        return ClipFiles(config, weights, (), bool(source.repository))
    repository = source.tokenizer
    found = [get_file(repository, file) if repository else get(file) for file in TOKENIZER_FILES]
    tokenizer = tuple(path for path in found if path)
    return ClipFiles(config, weights, tokenizer, bool(source.repository)) if tokenizer else None


def read_config(path: Path) -> dict[str, Any]:
    """Read ``open_clip_config.json``.

    Raises:
        CheckpointError: it is too large or no JSON object.
    """
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError(f"more than {MAX_CONFIG:,} bytes")
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: expected a config of open_clip, found: {first_line(error)}; restore it"
        ) from None
    return config if isinstance(config, dict) else {}


def checked_config(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a config without what could name code or other repositories.

    Raises:
        CheckpointError: it describes no CLIP, or one with a tower that only its own repository can describe.
    """
    model = config.get("model_cfg")
    towers = [model.get(key) for key in ("vision_cfg", "text_cfg")] if isinstance(model, dict) else []
    if not isinstance(model, dict) or not all(isinstance(tower, dict) for tower in towers):
        raise CheckpointError(
            f"text encoder {name}: expected {CONFIG_FILE} with model_cfg, found none in it; name a folder that open_clip wrote"
        )
    vision, text = dict(model["vision_cfg"]), dict(model["text_cfg"])
    if text.get("hf_model_name") or ":" in str(vision.get("timm_model_name", "")):
        raise CheckpointError(
            f"text encoder {name}: expected towers of open_clip and timm, found one that its own repository describes; use another CLIP"
        )
    settings = text.get("tokenizer_kwargs")
    if isinstance(settings, dict):
        text["tokenizer_kwargs"] = {key: value for key, value in settings.items() if key in TOKENIZER_SETTINGS}
    pictures = config.get("preprocess_cfg")
    return {
        "model_cfg": {**model, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": dict(pictures) if isinstance(pictures, dict) else {},
    }


def cached_file(repository: str, file: str) -> Path | None:
    """Return a file of a repository from the cache of the hub's library, where ``loradex space use`` put it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(repository, file)
    except HFValidationError:
        return None
    return Path(path) if isinstance(path, str) else None


def local_clip(name: str) -> ClipFiles:
    """Return the files of a CLIP that is on this machine.

    Raises:
        CheckpointError: it is not, or as ``parse_clip_name`` and ``find_clip``.
    """
    source = parse_clip_name(name)
    files = find_clip(source, cached_file)
    if files is None and source.repository:
        raise CheckpointError(
            f"text encoder {name}: expected its files on this machine, found none; `loradex space use {name}` downloads them"
        )
    if files is None:
        raise CheckpointError(
            f"text encoder {name}: expected {CONFIG_FILE} and {WEIGHTS_FILE} there, and files of its tokenizer if it needs them, "
            "found no such files; name another text encoder"
        )
    return files


def first_line(error: BaseException) -> str:
    """The first line of another library's error, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
