"""Files of a CLIP: found by every kind of name, loaded without network and pickles, hostile configs disarmed."""

import json
import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from loradex.retrieval.errors import CheckpointError, FetchError
from loradex.retrieval.space.clip_download import Download
from loradex.retrieval.space.clip_files import cached_file, checked_config, find_clip, local_clip, parse_clip_name
from loradex.retrieval.space.text_encoder import TextEncoder
from tests.tiny_clip import MODEL_CONFIG, add_architecture, save_tiny_clip, serve_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


def test_a_folder_is_loaded_as_open_clip_loads_it(clip_folder: Path) -> None:
    model, tokenizer, _ = local_clip(str(clip_folder)).load("tiny")
    oracle, _, _ = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    tokens = tokenizer(["a dog", "a slice of pizza"])
    assert torch.equal(model.encode_text(tokens), oracle.encode_text(tokens))
    assert not model.training


def test_an_architecture_with_a_file_is_the_same_clip(clip_folder: Path, tmp_path: Path) -> None:
    with add_architecture(tmp_path) as name:
        files = local_clip(f"{name}/{clip_folder / 'open_clip_model.safetensors'}")
        model, _, _ = files.load(name)
    oracle, _, _ = local_clip(f"local-dir:{clip_folder}").load("tiny")
    assert all(torch.equal(value, oracle.state_dict()[key]) for key, value in model.state_dict().items())


def test_names_of_open_clips_list_have_a_repository_with_safetensors() -> None:
    source = parse_clip_name("ViT-B-32-quickgelu/openai")
    assert source.repository == "timm/vit_base_patch32_clip_224.openai"
    assert source.config is not None
    assert source.config["model_cfg"]["quick_gelu"] is True
    assert parse_clip_name("ViT-B-16-SigLIP/webli").tokenizer == "timm/ViT-B-16-SigLIP"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-32/openai", "name ViT-B-32-quickgelu/openai"),
        ("no-such/openai", "expected a CLIP that open_clip knows"),
        ("ViT-B-32/no-such", "expected weights as a file or one of openai"),
        ("ViT-B-32-quickgelu/openai", "`loradex space use ViT-B-32-quickgelu/openai` downloads them"),
        ("hf-hub:owner/name", "`loradex space use hf-hub:owner/name` downloads them"),
        ("hf-hub:owner/name/more/..", "`loradex space use"),
        ("local-dir:/no/such/folder", "expected open_clip_config.json"),
    ],
)
def test_what_is_not_here_is_refused_and_never_fetched(name: str, message: str) -> None:
    # HF_HUB_OFFLINE would be off in a person's shell; the guard of conftest fails any connection.
    with pytest.raises(CheckpointError, match=message.replace("(", r"\(")) as caught:
        TextEncoder.load(name, ("{}",))
    assert "\n" not in str(caught.value)


def test_no_pickle_is_read(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"\x80\x04N.")
    with add_architecture(tmp_path) as name, pytest.raises(CheckpointError, match="no pickle is read"):
        local_clip(f"{name}/{tmp_path / 'weights.bin'}")
    folder = save_tiny_clip(tmp_path / "clip")
    (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"open_clip_model\.safetensors"):
        local_clip(str(folder))


def test_a_config_cannot_name_code_or_other_repositories() -> None:
    text = {
        **MODEL_CONFIG["text_cfg"],
        "hf_tokenizer_name": "",
        "tokenizer_kwargs": {"trust_remote_code": True, "clean": "lower"},
    }
    config = checked_config({"model_cfg": MODEL_CONFIG | {"text_cfg": text}}, "clip")
    assert config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] == {"clean": "lower"}
    for tower, change in (
        ("text_cfg", {"hf_model_name": "owner/code"}),
        ("vision_cfg", {"timm_model_name": "hf-hub:owner/code"}),
    ):
        hostile = MODEL_CONFIG | {tower: MODEL_CONFIG[tower] | change}
        with pytest.raises(CheckpointError, match="its own repository describes"):
            checked_config({"model_cfg": hostile}, "clip")


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", '{"model_cfg": 3}', '{"model_cfg": {"text_cfg": {}}}', "[" * 100_000]
)
def test_a_damaged_config_is_refused_in_one_line(clip_folder: Path, tmp_path: Path, config: str) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    (folder / "open_clip_config.json").write_text(config)
    with pytest.raises(CheckpointError) as caught:
        local_clip(str(folder)).load("clip")
    assert "\n" not in str(caught.value)


def test_weights_of_another_clip_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL_CONFIG | {"embed_dim": 24}}))
    with pytest.raises(CheckpointError, match="open_clip could not load it"):
        local_clip(str(folder)).load("clip")
    (folder / "open_clip_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="open_clip could not load it"):
        local_clip(str(folder)).load("clip")


def test_a_repository_is_sized_first_fetched_when_asked_and_then_found_offline(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parse_clip_name("hf-hub:owner/tiny")
    with serve_clip(clip_folder, "owner/tiny", tmp_path / "cache", monkeypatch) as hub:
        download = Download.plan(source)
        assert download.size == sum(file.stat().st_size for file in clip_folder.iterdir())
        assert hub.requests == ["GET /api/models/owner/tiny"]
        files = download.fetch()
        fetched = len(hub.requests)
        assert find_clip(source, cached_file) == files == local_clip("hf-hub:owner/tiny")
        assert Download.plan(source).files == ()
        model, _, _ = files.load("tiny")
        assert len(hub.requests) == fetched + 1  # the sizes; loading asks for nothing
    assert files.weights.read_bytes() == (clip_folder / "open_clip_model.safetensors").read_bytes()
    assert model.state_dict().keys()


def test_a_tokenizer_of_transformers_is_copied_and_read_without_the_hub(tmp_path: Path) -> None:
    text = {
        **MODEL_CONFIG["text_cfg"],
        "hf_tokenizer_name": "owner/tokenizer",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    folder = save_tiny_clip(tmp_path / "clip", text_cfg=text)
    with pytest.raises(CheckpointError, match="files of its tokenizer"):
        local_clip(str(folder))
    words = Tokenizer(WordLevel({"<unk>": 0, "<pad>": 1, "dog": 2, "pizza": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    local_clip(str(folder)).write(tmp_path / "copy")
    shutil.rmtree(folder)
    _, tokenizer, _ = local_clip(str(tmp_path / "copy")).load("tiny")
    assert tokenizer(["dog pizza"])[0, :3].tolist() == [2, 3, 1]
    assert TextEncoder.load(f"local-dir:{tmp_path / 'copy'}", ("{}",)).encode(["dog"]).shape == (1, 16)


def test_a_repository_without_safetensors_or_config_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_clip(tmp_path / "clip")
    with serve_clip(folder, "owner/tiny", tmp_path / "cache", monkeypatch):
        (folder / "open_clip_model.safetensors").rename(folder / "open_clip_pytorch_model.bin")
        with pytest.raises(FetchError, match="no pickle is read"):
            Download.plan(parse_clip_name("hf-hub:owner/tiny"))
        (folder / "open_clip_pytorch_model.bin").rename(folder / "open_clip_model.safetensors")
        (folder / "open_clip_config.json").unlink()
        with pytest.raises(FetchError, match="no CLIP of open_clip"):
            Download.plan(parse_clip_name("hf-hub:owner/tiny"))
        for name in ("owner/other", "owner/../x", "a b"):
            with pytest.raises(FetchError, match="cannot be listed"):
                Download.plan(parse_clip_name(f"hf-hub:{name}"))
