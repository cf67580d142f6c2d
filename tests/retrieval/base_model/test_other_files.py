"""Files and folders that are no base models are refused in one line that says what they are."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from loradex.app.paths import CLIP as MINI_CLIP
from loradex.app.paths import MINIATURE, TREES
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.errors import FileCorrupt, FileError, FileMissing, FileUnsafe, FileUnsupported
from tests.retrieval.base_model.base_files import CLIP, VAE, checkpoint_shapes, sgm_layers, write_folder, write_tensors
from tests.retrieval.lora.hostile_files import CORPUS

LORA = next(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        (zipped(), FileUnsafe, "a zip archive, as torch.save writes it, .* could run code; convert it where you trust"),
        (pickle.dumps({"state_dict": {}}), FileUnsafe, "a pickle, which was not opened as it could run code"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            FileUnsupported,
            "a pointer of Git LFS",
        ),
        (b"\n<!DOCTYPE html><html><body>Sign in", FileUnsupported, "a web page; download it again, signed in"),
        (b'{"error": "Unauthorized"}', FileUnsupported, "a JSON document"),
        (b"GGUF\3\0\0\0" + bytes(99), FileUnsupported, "GGUF, a quantised model"),
        (b"", FileMissing, "an empty file"),
        (b"something else entirely", FileUnsupported, "plain text that begins with 'something else entirely'"),
        (b"\xfe\xdc\0" * 9, FileCorrupt, "no safetensors file"),
    ],
    ids=["zip", "pickle", "lfs", "page", "json", "gguf", "empty", "text", "other"],
)
def test_other_containers(raw: bytes, error: type[FileError], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(raw)
    with pytest.raises(error, match=message) as caught:
        BaseModel.open(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        (sgm_layers("sd1"), "a diffusion model alone"),
        ({name.removeprefix("model.diffusion_model."): s for name, s in sgm_layers("sdxl").items()}, "a U-Net alone"),
        (VAE, "a VAE"),
        ({"encoder.down.0.block.0.conv1.weight": (4, 4), "decoder.up.0.block.0.conv1.weight": (4, 4)}, "a VAE"),
        (CLIP, "a text encoder alone"),
        ({f"control_model.{name}": shape for name, shape in sgm_layers("sd1").items()}, "a ControlNet"),
        ({"emb_params": (2, 768)}, r"a textual inversion \(embedding\) of 2 vectors for Stable Diffusion 1"),
        ({"double_blocks.0.img_attn.qkv.weight": (9216, 3072), "img_in.weight": (3072, 64)}, "a transformer alone"),
        ({}, "no tensors"),
        ({"a\nb": (1,)}, r"1 tensors such as 'a\\nb'"),
        (
            {name: shape for name, shape in checkpoint_shapes("sd1").items() if "diffusion" not in name},
            "found (a VAE|text encoders alone)",
        ),
    ],
)
def test_other_tensors(shapes: dict[str, tuple[int, ...]], kind: str, tmp_path: Path) -> None:
    with pytest.raises(FileUnsupported, match=f"expected a base model with its text encoders, .*{kind}") as caught:
        BaseModel.open(write_tensors(tmp_path / "file.safetensors", shapes))
    assert "\n" not in str(caught.value)


def test_a_lora_and_parts_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(FileUnsupported, match="found a LoRA; name a whole checkpoint"):
        BaseModel.open(LORA)
    folder = write_folder(tmp_path / "folder")
    with pytest.raises(FileUnsupported, match=f"found a text encoder alone; name {folder}$"):
        BaseModel.open(folder / "text_encoder" / "model.safetensors")
    with pytest.raises(FileMissing, match=f"found no model_index.json in it; name {folder}$"):
        BaseModel.open(folder / "unet")
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    with pytest.raises(FileMissing, match="name a folder below its snapshots"):
        BaseModel.open(tmp_path / "models--a--b")
    for place in (tmp_path, TREES / "mini-a", MINI_CLIP):
        with pytest.raises(FileMissing, match="found no model_index.json"):
            BaseModel.open(place)
    for name in ("none", "x" * 300, "a\0b"):
        with pytest.raises(FileMissing, match="check the path"):
            BaseModel.open(tmp_path / name)


def pickled(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.rename(path.with_name("pytorch_model.bin" if path.stem == "model" else f"{path.stem}.bin"))


def without_weights(folder: Path) -> None:
    for path in folder.rglob("*.safetensors"):
        path.unlink()


def index_of(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "model_index.json").write_text(text) and None


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (pickled, FileUnsafe, "a text encoder as safetensors, found pickles, .* save_pretrained"),
        (without_weights, FileMissing, "a text encoder as safetensors, found no weights; download the whole model"),
        (lambda folder: (folder / "text_encoder" / "config.json").unlink(), FileMissing, "text_encoder/config.json"),
        (index_of("[" * 100_000), FileCorrupt, "model_index.json: expected JSON, found"),
        (index_of("[]"), FileCorrupt, "expected a JSON object, found list"),
        (index_of('{"a": "' + "x" * 2**20 + '"}'), FileCorrupt, "expected JSON of up to 1 MiB, found more"),
        (
            index_of('{"text_encoder": ["transformers", "T"]}'),
            FileUnsupported,
            "a U-Net or a transformer .*text_encoder",
        ),
        (index_of('{"../unet": ["diffusers", "U"], "unet": ["evil", "E"]}'), FileUnsupported, "found nothing"),
    ],
)
def test_spoiled_folders(spoil: Callable[[Path], None], error: type[FileError], message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    spoil(folder)
    with pytest.raises(error, match=message) as caught:
        BaseModel.open(folder)
    assert "\n" not in str(caught.value)


def test_hostile_headers_give_typed_errors(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    one = tmp_path / "one.safetensors"
    for name, raw in CORPUS.items():
        for path in (one, folder / "unet" / "diffusion_pytorch_model.safetensors"):
            path.write_bytes(raw)
        for place in (one, folder):
            try:
                assert BaseModel.open(place).family == "unknown", name
            except FileError as error:
                assert "\n" not in str(error), name


def test_an_unknown_architecture_has_no_family(tmp_path: Path) -> None:
    shapes = {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (321, 77)}
    shapes |= {f"cond_stage_model.transformer.{name}": shape for name, shape in CLIP.items()}
    assert BaseModel.open(write_tensors(tmp_path / "one.safetensors", shapes)).family == "unknown"
    folder = write_folder(tmp_path / "folder")
    index = json.loads((folder / "model_index.json").read_text()) | {"unet": ["diffusers", "Evil"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    without_weights(folder / "unet")
    assert BaseModel.open(folder).family == "unknown"
