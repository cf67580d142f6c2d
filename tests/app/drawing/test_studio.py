"""Drawings of the miniature's LoRAs, with and without them."""

import hashlib
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from loradex.app.drawing.base_models import Bases
from loradex.app.drawing.cache import Drawings
from loradex.app.drawing.errors import Busy, NoBase, Stopped, TooSlow
from loradex.app.drawing.limits import Turns
from loradex.app.drawing.loaded_models import MiniatureArtist
from loradex.app.drawing.options import Wish
from loradex.app.drawing.renderer import Pair, Studio
from loradex.app.paths import SHIPPED_ZOO, TREES, encoder_folders
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileMissing, FileUnsupported, QueryError
from tests.app.drawing.conftest import lora

QUICK = Wish(steps=2)


def pixels(picture: Image.Image) -> NDArray[np.float64]:
    return np.asarray(picture).astype(np.float64)


def away(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of the pixels, of 255."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def same(one: Pair, other: Pair) -> None:
    for ours, theirs in ((one.without, other.without), (one.drawn, other.drawn)):
        assert ours.picture.tobytes() == theirs.picture.tobytes()


@pytest.mark.parametrize("tree", ["mini-a", "mini-b"])
def test_a_drawing_is_the_stored_preview(studio: Studio, tree: str) -> None:
    pair = studio.draw(lora(tree))
    previews = [
        Image.open(SHIPPED_ZOO / "previews" / f"{id}.png").convert("RGB")
        for id in (pair.id, studio.draw(lora(tree, 1), QUICK).id)
    ]
    assert away(pair.drawn.picture, previews[0]) < 6  # it has a palette of 64 colours
    assert away(pair.drawn.picture, previews[1]) > 20
    assert away(pair.without.picture, previews[0]) > 20
    assert (pair.family, pair.wish, pair.doubts) == (tree, Wish("an icon", steps=16, guidance=2.0), ())


def test_the_same_wish_gives_the_same_bytes_and_another_another_picture(bases: Bases, tmp_path: Path) -> None:
    first, again = (Studio(bases, Drawings(tmp_path / name)).draw(lora("mini-b"), QUICK) for name in "ab")
    assert first.drawn.path.read_bytes() == again.drawn.path.read_bytes()
    assert first.without.path.read_bytes() == again.without.path.read_bytes()
    assert not again.drawn.cached
    studio = Studio(bases, Drawings(tmp_path / "a"))
    others = [
        studio.draw(lora("mini-b"), wish).drawn.picture
        for wish in (Wish(steps=2, seed=1), Wish("dog", steps=2), Wish(steps=2, strength=0.5))
    ]
    others.append(studio.draw(lora("mini-b", 1), QUICK).drawn.picture)
    assert all(away(first.drawn.picture, other) > 1 for other in others)


def test_strength_zero_is_without(studio: Studio) -> None:
    none = studio.draw(lora("mini-a"), Wish(steps=2, strength=-0.0))
    assert none.drawn.path == none.without.path
    with_it = studio.draw(lora("mini-a"), Wish(steps=2, strength=1))
    assert with_it.without.cached and with_it.without.path == none.without.path
    assert away(with_it.drawn.picture, none.drawn.picture) > 1
    barely = studio.draw(lora("mini-a"), Wish(steps=2, strength=1e-6))
    assert away(barely.drawn.picture, none.without.picture) < 0.1


def test_a_drawing_from_the_cache_loads_nothing_and_shares_what_is_without(studio: Studio, tmp_path: Path) -> None:
    drawn = studio.draw(lora("mini-b"), QUICK)
    other = studio.draw(lora("mini-b", 1), QUICK)
    assert (drawn.without.cached, drawn.drawn.cached, other.without.cached, other.drawn.cached) == (
        False,
        False,
        True,
        False,
    )
    fresh = Studio(Bases(), studio.cache, turns=Turns(-1))  # whoever waits for a turn would be told that all is busy
    again = fresh.draw(lora("mini-b"), QUICK)
    same(drawn, again)
    assert again.without.cached and again.drawn.cached
    assert fresh.bases._loaded is None


def test_a_drawing_that_was_stopped_leaves_nothing_behind(studio: Studio) -> None:
    stop, seen = threading.Event(), list[int]()

    def after(done: int, total: int) -> None:
        assert total == 12
        seen.append(done)
        if done == 8:  # two steps into the drawing with the LoRA
            stop.set()

    with pytest.raises(Stopped):
        studio.draw(lora("mini-b"), Wish(steps=6), stop=stop, progress=after)
    assert seen == list(range(1, 9))
    assert len(list(studio.cache.folder.iterdir())) == 1
    next_one = studio.draw(lora("mini-b", 1), Wish(steps=3))
    code = (
        "import sys; from pathlib import Path; from loradex.app.drawing.base_models import Bases;"
        "from loradex.app.drawing.renderer import Studio; from loradex.app.drawing.options import Wish;"
        "import hashlib; pair = Studio(Bases()).draw(Path(sys.argv[1]), Wish(steps=3));"
        "print(*(hashlib.sha256(each.path.read_bytes()).hexdigest() for each in (pair.without, pair.drawn)))"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code, str(lora("mini-b", 1))], capture_output=True, text=True, check=True
    )
    assert fresh.stdout.split() == [
        hashlib.sha256(each.path.read_bytes()).hexdigest() for each in (next_one.without, next_one.drawn)
    ]


def test_one_at_a_time_and_few_wait(bases: Bases, tmp_path: Path) -> None:
    studio = Studio(bases, Drawings(tmp_path), turns=Turns(1))
    going, stop, answers = threading.Event(), threading.Event(), list[str]()

    def draw(progress: bool) -> None:
        try:
            studio.draw(
                lora("mini-b"),
                Wish(steps=50),
                stop=stop,
                progress=lambda done, total: going.set() if progress else None,
            )
        except Stopped as error:
            answers.append(str(error))

    first = threading.Thread(target=draw, args=(True,))
    first.start()
    assert going.wait(60)
    second = threading.Thread(target=draw, args=(False,))
    second.start()
    while studio.turns._seats._value:
        second.join(0.01)
    with pytest.raises(Busy, match="at most 1 to wait"):
        studio.draw(lora("mini-b"), Wish(steps=50))
    stop.set()
    first.join()
    second.join()
    assert len(answers) == 2
    assert studio.draw(lora("mini-b"), QUICK).drawn.picture


def test_a_drawing_that_takes_too_long_is_ended(bases: Bases, tmp_path: Path) -> None:
    with pytest.raises(TooSlow, match=r"at most 0.001 s, found more at step \d of 4; ask for fewer steps"):
        Studio(bases, Drawings(tmp_path), limit=0.001).draw(lora("mini-b"), QUICK)


def test_what_does_not_fit_is_refused_and_nothing_stays_attached(studio: Studio, tmp_path: Path) -> None:
    before = studio.draw(lora("mini-b"), QUICK)
    moved = {
        name.replace("up_blocks.1.attentions.1", "up_blocks.1.attentions.7"): tensor
        for name, tensor in load_file(lora("mini-b")).items()
    }
    save_file(moved, tmp_path / "moved.safetensors")
    with pytest.raises(
        FileUnsupported, match=r"expected layer up_blocks\.1\.attentions\.7.* in the base model, found none"
    ):
        studio.draw(tmp_path / "moved.safetensors", QUICK)
    unet = studio.bases.artist(studio.bases.of_family("mini-b")).parts["denoiser"]
    assert not any(module._forward_hooks for module in unet.modules())
    same(before, Studio(studio.bases, Drawings(tmp_path / "new")).draw(lora("mini-b"), QUICK))
    other = Bases(replace(studio.bases.of_family("mini-b"), family="mini-a"))
    with pytest.raises(FileUnsupported, match=r"expected layer .* of \(96, 96\) in the base model, found \(64, 64\)"):
        Studio(other, studio.cache).draw(lora("mini-a"), QUICK)


def test_no_base_no_file_no_size(studio: Studio, tmp_path: Path) -> None:
    module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    factors = {f"{module}.lora_down.weight": torch.ones(4, 768), f"{module}.lora_up.weight": torch.ones(640, 4)}
    save_file(factors, tmp_path / "sd1.safetensors")
    with pytest.raises(
        NoBase,
        match="expected one of family sd1, found those of mini-a, mini-b; .* --base sd1=FOLDER or in .LORADEX_BASES",
    ):
        studio.draw(tmp_path / "sd1.safetensors")
    with pytest.raises(FileMissing):
        studio.draw(tmp_path / "none.safetensors")
    with pytest.raises(QueryError, match="size: expected none, as mini-a draws in one size, found 64"):
        studio.draw(lora("mini-a"), Wish(size=64))


def test_a_whole_model_is_drawn_by_its_difference(studio: Studio, tmp_path: Path) -> None:
    tuned = MiniatureArtist(TREES / "mini-b")
    unet = tuned.pipeline.unet
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith("weight") and weight.dim() > 1:
                direction = torch.outer(torch.randn(len(weight)), torch.randn(weight[0].numel())).reshape(weight.shape)
                weight += 0.1 * direction * weight.norm() / direction.norm()
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in unet.state_dict().items()}, path)
    pair = Studio(studio.bases, studio.cache, Encoder.load(*encoder_folders()).router.open).draw(path, QUICK)
    assert pair.family == "mini-b" and "whole model" in pair.doubts[0]
    truth = tuned.paint(pair.wish, lambda: None)
    assert away(pair.drawn.picture, truth) < 0.5 < 5 < away(pair.without.picture, truth)
