"""Drawing with the LoRAs of the miniature and without them."""

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

from loradex.app.drawing.base_models import BaseModels
from loradex.app.drawing.cache import DrawingCache
from loradex.app.drawing.errors import Busy, NoBase, Stopped, TooSlow
from loradex.app.drawing.limits import DrawingQueue
from loradex.app.drawing.loaded_models import MiniatureBaseModel
from loradex.app.drawing.options import DrawOptions
from loradex.app.drawing.renderer import DrawingPair, Renderer
from loradex.app.paths import SHIPPED_ZOO, TREES, encoder_folders
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileMissing, FileUnsupported, QueryError
from tests.app.drawing.conftest import lora

QUICK = DrawOptions(steps=2)


def pixels(image: Image.Image) -> NDArray[np.float64]:
    return np.asarray(image).astype(np.float64)


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    """Mean absolute difference of the pixels, from 0 to 255."""
    return float(np.abs(pixels(one) - pixels(other)).mean())


def assert_same(pair: DrawingPair, other: DrawingPair) -> None:
    for drawing, expected in ((pair.without_model, other.without_model), (pair.with_model, other.with_model)):
        assert drawing.image.tobytes() == expected.image.tobytes()


@pytest.mark.parametrize("tree", ["mini-a", "mini-b"])
def test_a_drawing_is_the_stored_preview(renderer: Renderer, tree: str) -> None:
    pair = renderer.draw(lora(tree))
    previews = [
        Image.open(SHIPPED_ZOO / "previews" / f"{id}.png").convert("RGB")
        for id in (pair.id, renderer.draw(lora(tree, 1), QUICK).id)
    ]
    assert mean_difference(pair.with_model.image, previews[0]) < 6  # previews have a palette of 64 colours
    assert mean_difference(pair.with_model.image, previews[1]) > 20
    assert mean_difference(pair.without_model.image, previews[0]) > 20
    assert (pair.family, pair.options, pair.warnings) == (tree, DrawOptions("an icon", steps=16, guidance=2.0), ())


def test_drawings_depend_on_all_options_and_on_nothing_else(base_models: BaseModels, tmp_path: Path) -> None:
    first, again = (Renderer(base_models, DrawingCache(tmp_path / name)).draw(lora("mini-b"), QUICK) for name in "ab")
    assert first.with_model.path.read_bytes() == again.with_model.path.read_bytes()
    assert first.without_model.path.read_bytes() == again.without_model.path.read_bytes()
    assert not again.with_model.cached
    renderer = Renderer(base_models, DrawingCache(tmp_path / "a"))
    others = [
        renderer.draw(lora("mini-b"), options).with_model.image
        for options in (DrawOptions(steps=2, seed=1), DrawOptions("dog", steps=2), DrawOptions(steps=2, strength=0.5))
    ]
    others.append(renderer.draw(lora("mini-b", 1), QUICK).with_model.image)
    assert all(mean_difference(first.with_model.image, other) > 1 for other in others)


def test_strength_zero_draws_the_base_model(renderer: Renderer) -> None:
    zero = renderer.draw(lora("mini-a"), DrawOptions(steps=2, strength=-0.0))
    assert zero.with_model.path == zero.without_model.path
    full = renderer.draw(lora("mini-a"), DrawOptions(steps=2, strength=1))
    assert full.without_model.cached and full.without_model.path == zero.without_model.path
    assert mean_difference(full.with_model.image, zero.with_model.image) > 1
    tiny = renderer.draw(lora("mini-a"), DrawOptions(steps=2, strength=1e-6))
    assert mean_difference(tiny.with_model.image, zero.without_model.image) < 0.1


def test_cached_drawings_load_no_base_model_and_the_base_drawing_is_shared(renderer: Renderer, tmp_path: Path) -> None:
    drawn = renderer.draw(lora("mini-b"), QUICK)
    other = renderer.draw(lora("mini-b", 1), QUICK)
    assert not drawn.without_model.cached and not drawn.with_model.cached
    assert other.without_model.cached and not other.with_model.cached
    fresh = Renderer(BaseModels(), renderer.cache, queue=DrawingQueue(-1))  # this queue refuses every caller
    again = fresh.draw(lora("mini-b"), QUICK)
    assert_same(drawn, again)
    assert again.without_model.cached and again.with_model.cached
    assert fresh.base_models._loaded is None


def test_a_stopped_drawing_leaves_nothing_behind(renderer: Renderer) -> None:
    stop, seen = threading.Event(), list[int]()

    def progress(done: int, total: int) -> None:
        assert total == 12
        seen.append(done)
        if done == 8:  # two steps into the drawing with the LoRA
            stop.set()

    with pytest.raises(Stopped):
        renderer.draw(lora("mini-b"), DrawOptions(steps=6), stop=stop, progress=progress)
    assert seen == list(range(1, 9))
    assert len(list(renderer.cache.folder.iterdir())) == 1
    following = renderer.draw(lora("mini-b", 1), DrawOptions(steps=3))
    code = (
        "import sys; from pathlib import Path; from loradex.app.drawing.base_models import BaseModels;"
        "from loradex.app.drawing.renderer import Renderer; from loradex.app.drawing.options import DrawOptions;"
        "import hashlib; pair = Renderer(BaseModels()).draw(Path(sys.argv[1]), DrawOptions(steps=3));"
        "print(*(hashlib.sha256(each.path.read_bytes()).hexdigest() for each in (pair.without_model, pair.with_model)))"
    )
    fresh = subprocess.run(
        [sys.executable, "-c", code, str(lora("mini-b", 1))], capture_output=True, text=True, check=True
    )
    assert fresh.stdout.split() == [
        hashlib.sha256(each.path.read_bytes()).hexdigest() for each in (following.without_model, following.with_model)
    ]


def test_one_drawing_at_a_time_and_few_callers_wait(base_models: BaseModels, tmp_path: Path) -> None:
    renderer = Renderer(base_models, DrawingCache(tmp_path), queue=DrawingQueue(1))
    started, stop, messages = threading.Event(), threading.Event(), list[str]()

    def draw(signal: bool) -> None:
        try:
            renderer.draw(
                lora("mini-b"),
                DrawOptions(steps=50),
                stop=stop,
                progress=lambda done, total: started.set() if signal else None,
            )
        except Stopped as error:
            messages.append(str(error))

    first = threading.Thread(target=draw, args=(True,))
    first.start()
    assert started.wait(60)
    second = threading.Thread(target=draw, args=(False,))
    second.start()
    while renderer.queue._places._value:
        second.join(0.01)
    with pytest.raises(Busy, match="at most 1 to wait"):
        renderer.draw(lora("mini-b"), DrawOptions(steps=50))
    stop.set()
    first.join()
    second.join()
    assert len(messages) == 2
    assert renderer.draw(lora("mini-b"), QUICK).with_model.image


def test_a_drawing_times_out(base_models: BaseModels, tmp_path: Path) -> None:
    with pytest.raises(TooSlow, match=r"at most 0.001 s, found more at step \d of 4; ask for fewer steps"):
        Renderer(base_models, DrawingCache(tmp_path), timeout=0.001).draw(lora("mini-b"), QUICK)


def test_a_lora_that_does_not_fit_is_refused_and_no_hook_remains(renderer: Renderer, tmp_path: Path) -> None:
    before = renderer.draw(lora("mini-b"), QUICK)
    moved = {
        name.replace("up_blocks.1.attentions.1", "up_blocks.1.attentions.7"): tensor
        for name, tensor in load_file(lora("mini-b")).items()
    }
    save_file(moved, tmp_path / "moved.safetensors")
    with pytest.raises(NoBase, match="expected a known family, found unknown"):
        renderer.draw(tmp_path / "moved.safetensors", QUICK)
    unet = renderer.base_models.load(renderer.base_models.get("mini-b")).components["denoiser"]
    assert not any(module._forward_hooks for module in unet.modules())
    assert_same(before, Renderer(renderer.base_models, DrawingCache(tmp_path / "new")).draw(lora("mini-b"), QUICK))
    other = BaseModels(replace(renderer.base_models.get("mini-b"), family="mini-a"))
    with pytest.raises(FileUnsupported, match=r"expected layer .* of \(96, 96\) in the base model, found \(64, 64\)"):
        Renderer(other, renderer.cache).draw(lora("mini-a"), QUICK)


def test_missing_base_missing_file_and_unsupported_size(renderer: Renderer, tmp_path: Path) -> None:
    module = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    factors = {f"{module}.lora_down.weight": torch.ones(4, 768), f"{module}.lora_up.weight": torch.ones(640, 4)}
    save_file(factors, tmp_path / "sd1.safetensors")
    with pytest.raises(
        NoBase,
        match="expected one of family sd1, found those of mini-a, mini-b; .* --base sd1=PATH or in .LORADEX_BASES",
    ):
        renderer.draw(tmp_path / "sd1.safetensors")
    with pytest.raises(FileMissing):
        renderer.draw(tmp_path / "none.safetensors")
    with pytest.raises(QueryError, match="size: expected none, as mini-a draws in one size, found 64"):
        renderer.draw(lora("mini-a"), DrawOptions(size=64))


def test_a_full_model_is_drawn_by_its_difference_to_the_base(renderer: Renderer, tmp_path: Path) -> None:
    full_model = MiniatureBaseModel(TREES / "mini-b")
    unet = full_model.pipeline.unet
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in unet.named_parameters():
            if name.endswith("weight") and weight.dim() > 1:
                direction = torch.outer(torch.randn(len(weight)), torch.randn(weight[0].numel())).reshape(weight.shape)
                weight += 0.1 * direction * weight.norm() / direction.norm()
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in unet.state_dict().items()}, path)
    pair = Renderer(renderer.base_models, renderer.cache, Encoder.load(*encoder_folders()).router.open).draw(
        path, QUICK
    )
    assert pair.family == "mini-b" and "full model" in pair.warnings[0]
    expected = full_model.generate(pair.options, lambda: None)
    assert (
        mean_difference(pair.with_model.image, expected) < 0.5 < 5 < mean_difference(pair.without_model.image, expected)
    )
