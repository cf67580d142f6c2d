"""Spaces made from a CLIP: values against open_clip, and names that depend on the CLIP alone."""

import re
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.space.clip_files import ClipFiles, local_clip
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.everyday import everyday_pictures, everyday_words
from loradex.retrieval.space.labels import LabelList
from loradex.retrieval.space.making import TEMPLATES, digest_of_clip, make_space
from tests.tiny_clip import save_tiny_clip


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def made(clip_folder: Path) -> tuple[Space, LabelList]:
    return make_space("tiny", local_clip(str(clip_folder)), clip_folder)


def digest(files: ClipFiles) -> str:
    return digest_of_clip(files.load("tiny")[0], files.config)


def test_the_list_of_everyday_words_is_clean() -> None:
    words = everyday_words()
    assert 2000 <= len(words) <= 3000
    assert len(set(words)) == len(words)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9' -]*", word) for word in words)
    assert {"dog", "pizza", "oak", "castle", "teacher", "watercolour", "oil painting", "glass", "river"} <= set(words)


def test_everyday_pictures_are_different_and_not_empty() -> None:
    pictures = everyday_pictures()
    assert {picture.size for picture in pictures} == {(64, 64)}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 64


def test_centres_are_the_means_of_everyday_words_and_pictures(clip_folder: Path, made: tuple[Space, LabelList]) -> None:
    space, labels = made
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{clip_folder}")
    with torch.inference_mode():
        of_template = [
            model.eval().encode_text(tokenizer([template.format(word) for word in everyday_words()]), normalize=True)
            for template in TEMPLATES
        ]
        texts = F.normalize(torch.stack(of_template).mean(0), dim=-1)
        pictures = model.encode_image(torch.stack([preprocess(p) for p in everyday_pictures()]), normalize=True)
    torch.testing.assert_close(space.centre, texts.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(space.picture_centre, pictures.mean(0), atol=1e-5, rtol=0)
    assert labels.names == everyday_words()
    torch.testing.assert_close(labels.vectors, F.normalize(texts - texts.mean(0), dim=-1), atol=1e-3, rtol=0)


def test_the_name_is_of_the_clip_and_not_of_digits_places_or_words_for_it(
    clip_folder: Path, made: tuple[Space, LabelList], tmp_path: Path
) -> None:
    space = made[0]
    assert re.fullmatch(r"clip-16-[0-9a-f]{12}", space.name)
    assert replace(space, centre=space.centre + 1e-6, text_encoder="another name").name == space.name
    files = local_clip(str(clip_folder))
    # the same weights with other metadata, and settings that are open_clip's defaults anyway
    weights = tmp_path / "again.safetensors"
    save_file(load_file(clip_folder / "open_clip_model.safetensors"), weights, {"saved": "again"})
    text = files.config["model_cfg"]["text_cfg"] | {"pool_type": "argmax", "mlp_ratio": 4.0}
    same = ClipFiles({**files.config, "model_cfg": {**files.config["model_cfg"], "text_cfg": text}}, weights)
    assert digest(files) == digest(same) == space.made_from


def test_another_clip_has_another_name(clip_folder: Path, tmp_path: Path) -> None:
    files = local_clip(str(clip_folder))
    gelu = replace(files, config=files.config | {"model_cfg": files.config["model_cfg"] | {"quick_gelu": True}})
    squash = replace(files, config=files.config | {"preprocess_cfg": {"mean": [0.4, 0.4, 0.4]}})
    other = local_clip(str(save_tiny_clip(tmp_path, seed=1)))
    assert len({digest(clip) for clip in (files, gelu, squash, other)}) == 4


def test_a_space_keeps_its_name_in_a_file_and_its_encoder_finds_the_clip_beside_it(
    clip_folder: Path, made: tuple[Space, LabelList], tmp_path: Path
) -> None:
    space, labels = made
    local_clip(str(clip_folder)).write(tmp_path / "clip")
    replace(space, text_encoder="ViT-B-32-quickgelu/openai").save(tmp_path / "space.safetensors")
    encoder = Encoder.load(tmp_path)
    assert encoder.space.name == space.name
    assert encoder.text_encoder_name == f"local-dir:{tmp_path / 'clip'}"
    # no file of labels yet: the everyday words stand in
    assert not encoder.has_labels
    torch.testing.assert_close(encoder.default_labels.vectors, labels.vectors, atol=1e-4, rtol=0)
