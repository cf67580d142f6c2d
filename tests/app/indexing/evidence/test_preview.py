"""Evidence by pictures: small copies, and the position that they give."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from loradex.app.indexing.evidence.preview import PreviewPlacer, open_copy, small_copies, small_copy
from loradex.app.paths import MINIATURE
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.space.likelihood import Likelihood
from tests.app.indexing.tiny_clip import DIM, save_encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


def drawing(colour: str, side: int = 64) -> Image.Image:
    """A shape on a white ground."""
    picture = Image.new("RGB", (side, side), "white")
    picture.paste(colour, (side // 4, side // 4, side // 2, 3 * side // 4))
    return picture


def test_copies_are_exact_or_nearly_so(tmp_path: Path) -> None:
    noise = Image.effect_noise((300, 600), 60).convert("RGB")
    drawing("red").save(tmp_path / "small.png")
    noise.save(tmp_path / "large.png")
    drawing("red").save(tmp_path / "again.png")
    (tmp_path / "bad.png").write_text("no picture")
    paths = [str(tmp_path / name) for name in ("small.png", "large.png", "again.png", "bad.png")]
    copies, bad = small_copies(paths)
    assert list(bad) == [paths[3]]
    small, large = map(open_copy, copies)  # the second of two equal ones is left out
    assert np.array_equal(np.asarray(small), np.asarray(drawing("red")))
    assert large.size == (192, 384)
    assert len(copies[1]) < 2**17
    noise.thumbnail(large.size)
    assert np.abs(np.asarray(large, float) - np.asarray(noise, float)).mean() < 4


def test_profiles_do_not_make_copies_too_large(tmp_path: Path) -> None:
    """Pillow would copy them, beyond what it reads itself."""
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.png", "c.webp")]
    for number, (path, size) in enumerate(zip(paths, (900_000, 900_000, 5_000_000), strict=True)):
        profile = np.random.default_rng(0).bytes(size)
        Image.new("RGB", (64, 64), (100 * number, 0, 0)).save(path, icc_profile=profile)
    copies, bad = small_copies(paths)
    assert (len(copies), bad) == (3, {})
    assert [len(copy) < 1000 and open_copy(copy).size for copy in copies] == [(64, 64)] * 3


def test_a_copy_that_is_too_large_is_a_bad_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loradex.app.indexing.evidence.preview.MAX_COPY_BYTES", 1000)
    Image.effect_noise((64, 64), 60).save(tmp_path / "noise.png")
    copies, bad = small_copies([str(tmp_path / "noise.png")])
    assert copies == () and "bytes; save it anew" in bad[str(tmp_path / "noise.png")]


@pytest.mark.parametrize("copy", [b"", b"GIF89a", small_copy(drawing("red", 64))[:100]])
def test_what_is_no_copy_is_refused(copy: bytes) -> None:
    with pytest.raises(ValueError, match="picture"):
        open_copy(copy)


def test_a_model_lies_at_the_mean_of_its_pictures(encoder: Encoder) -> None:
    models = [[drawing("red"), drawing("blue"), drawing("green")], [], [drawing("black")]]
    placer = PreviewPlacer(encoder)
    first, none, last = placer.place(models)
    assert (none, placer.reason) == (None, None)
    for position, pictures in ((first, models[0]), (last, models[2])):
        assert position is not None
        vectors = [encoder.encode_pictures([picture])[0].double() for picture in pictures]
        mean = sum(vectors) / len(vectors)  # type: ignore[arg-type]
        expected = (mean / mean.norm()).numpy()  # type: ignore[union-attr]
        np.testing.assert_allclose(position.vector, expected, atol=1e-5)
        likelihood = Likelihood.of_pictures(encoder.default_labels.vectors)
        scale_and_bias = likelihood.scale_and_bias(torch.from_numpy(expected).float())
        assert (position.scale, position.bias) == pytest.approx(scale_and_bias, rel=1e-3)


def test_without_everyday_texts_the_score_is_the_cosine(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path)
    (position,) = PreviewPlacer(encoder).place([[drawing("red")]])
    assert position is not None
    assert (position.scale, position.bias, position.vector.shape) == (1.0, 0.0, (DIM,))
    np.testing.assert_allclose(position.vector, encoder.encode_pictures([drawing("red")])[0].numpy(), atol=1e-6)


def test_the_clip_is_loaded_when_it_is_needed_and_never_pickled(encoder: Encoder) -> None:
    fresh = Encoder.load(encoder.folder)
    placer = PreviewPlacer(fresh)
    assert placer.place([[], []]) == [None, None]
    assert "text_encoder" not in fresh.__dict__
    assert placer.can_place()
    assert "text_encoder" in fresh.__dict__
    assert len(fresh.default_labels.names) > 0
    sent = pickle.loads(pickle.dumps(fresh.to("cpu")))
    assert "text_encoder" not in sent.__dict__
    assert sent.has_labels
    assert sent.default_labels.names == fresh.default_labels.names
    assert sent.encode_pictures([drawing("red")]).shape == (1, encoder.space.dim)


def test_a_space_whose_clip_cannot_be_loaded_says_so_once(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path)
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    placer = PreviewPlacer(encoder)
    assert placer.place([[drawing("red")]]) == [None]
    assert not placer.can_place()
    assert "expected a CLIP that encodes pictures" in str(placer.reason)
    assert "\n" not in str(placer.reason)


def test_a_clip_of_another_space_places_nothing(tmp_path: Path, encoder: Encoder) -> None:
    """The folder's CLIP was replaced by one with vectors of another length."""
    wrong = save_encoder(tmp_path)
    object.__setattr__(wrong, "space", encoder.space)
    placer = PreviewPlacer(wrong)
    assert placer.place([[drawing("red")]]) == [None]
    assert placer.reason is not None
