"""LoRA files in several formats give the same updates; invalid ones end in a FileError."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from loradex.retrieval.errors import FileCorrupt, FileError, FileUnsupported
from loradex.retrieval.lora import Format, LoraFile
from loradex.retrieval.lora.formats import ENDINGS
from loradex.retrieval.lora.header import Header
from tests.retrieval.lora.lora_files import BLOCK, LAYERS, TO_Q, attn_processor, diffusers, kohya, peft, random_factors


@pytest.mark.parametrize(
    ("write", "format"),
    [
        (diffusers, Format.DIFFUSERS),
        (peft, Format.PEFT),
        (attn_processor, Format.ATTN_PROCESSOR),
        (lambda factors: peft(factors, "unet.", ".default"), Format.PEFT),
    ],
)
def test_all_formats_give_the_same_updates_and_id(tmp_path: Path, write: object, format: Format) -> None:
    factors = random_factors()
    save_file(write(factors), tmp_path / "x.safetensors")  # type: ignore[operator]
    lora = LoraFile.open(tmp_path / "x.safetensors")
    assert lora.format is format
    assert (lora.family, lora.ranks, lora.shapes) == ("mini-a", [4], dict(sorted(LAYERS.items())))
    for layer, update in lora.updates().items():
        torch.testing.assert_close(update.up @ update.down, factors[layer][1] @ factors[layer][0])
    save_file(diffusers(factors), tmp_path / "y.safetensors", metadata={"class_name": "dog"})
    assert lora.id == LoraFile.open(tmp_path / "y.safetensors").id


GLORA = {"a1": (96, 2), "a2": (2, 96), "b1": (96, 2), "b2": (2, 96)}


@pytest.mark.parametrize(
    ("alpha", "scale"),
    [
        (None, 1.0),
        (torch.tensor(2.0), 0.5),
        (torch.tensor([8.0]), 2.0),
        (torch.tensor(0.0), 1.0),
        (torch.tensor(4), 1.0),
    ],
)
def test_alpha_scales_the_update(tmp_path: Path, alpha: Tensor | None, scale: float) -> None:
    factors = random_factors()
    save_file(kohya(factors, alpha), tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    assert (lora.format, lora.family, lora.scale(TO_Q)) == (Format.KOHYA, "mini-a", scale)
    for layer, update in lora.updates().items():
        torch.testing.assert_close(update.up @ update.down, scale * factors[layer][1] @ factors[layer][0])


@pytest.mark.parametrize(
    "alpha", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.ones(2), torch.empty(0)]
)
def test_an_invalid_alpha_is_refused(tmp_path: Path, alpha: Tensor) -> None:
    save_file(kohya(random_factors(), alpha), tmp_path / "x")
    with pytest.raises(FileCorrupt, match="alpha"):
        LoraFile.open(tmp_path / "x").updates([TO_Q])


def test_names_with_underscores_only_are_read(tmp_path: Path) -> None:
    factors = random_factors()
    tensors = {
        name.replace("lora_unet_", "lora_unet_unet_"): tensor for name, tensor in kohya(factors, join="_").items()
    }
    assert "lora_unet_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k_lora_down.weight" in tensors
    save_file(tensors, tmp_path / "x")
    save_file(diffusers(factors), tmp_path / "y")
    assert LoraFile.open(tmp_path / "x").data_hash == LoraFile.open(tmp_path / "y").data_hash


def test_the_hash_covers_all_that_makes_the_update(tmp_path: Path) -> None:
    factors = random_factors()
    changes = {
        "plain": kohya(factors),
        "alpha of 1": kohya(factors, torch.tensor(4.0)),
        "alpha": kohya(factors, torch.tensor(2.0)),
        "half": {name: tensor.half() for name, tensor in kohya(factors).items()},
        "magnitude": kohya(factors) | {f"lora_unet_{TO_Q.replace('.', '_')}.dora_scale": torch.ones(96, 1)},
        "other layer": {name.replace("attn1_to_q", "attn1_to_v"): tensor for name, tensor in kohya(factors).items()},
    }
    hashes = {}
    for name, tensors in changes.items():
        save_file(tensors, tmp_path / "x")
        hashes[name] = LoraFile.open(tmp_path / "x").data_hash
    assert hashes.pop("alpha of 1") == hashes["plain"]
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        (
            {f"{TO_Q}.dora_scale": torch.ones(96, 1)},
            "DoRA's magnitudes of 1 layers need the base model; only the low-rank part is read",
        ),
        (
            {f"{TO_Q}.lora_magnitude_vector.weight": torch.ones(96)},
            "DoRA's magnitudes of 1 layers need the base model; only the low-rank part is read",
        ),
        ({f"{TO_Q}.diff_b": torch.ones(96)}, "biases of 1 layers are not read"),
        ({f"{TO_Q}.lora_B.bias": torch.ones(96)}, "biases of 1 layers are not read"),
        (
            {f"{BLOCK}.norm1.w_norm": torch.ones(96), f"{BLOCK}.norm2.diff": torch.ones(96)},
            "changes of 2 norms are not read",
        ),
        (
            {f"{BLOCK}.attn1.to_v.oft_blocks": torch.ones(2, 3, 3)},
            "rotation (OFT or BOFT) of 1 layers: needs the base model and is not read",
        ),
        (
            {f"{BLOCK}.attn1.to_v.set_weight": torch.ones(2, 3)},
            "replaced weights of 1 layers need the base model and are not read",
        ),
        ({"bundle_emb.cat.string_to_param.*": torch.ones(2, 3)}, "1 embeddings are not read"),
        ({"some.other.weight": torch.ones(2)}, "1 tensors are not understood, such as some.other.weight"),
        ({"nowhere.alpha": torch.ones(())}, "1 tensors are not understood, such as nowhere.alpha"),
        (
            {f"{TO_Q}.lora_{half}.second.weight": torch.ones(2, 2) for half in "AB"},
            "1 layers belong to further adapters, which are not read",
        ),
        (
            {"new.block.lora_A.weight": torch.ones(1, 2), "new.block.lora_B.weight": torch.ones(2, 1)},
            "1 layers keep the file's own names, such as new.block",
        ),
        ({f"{TO_Q}.diff": torch.ones(96, 96)}, "full differences of 1 layers beside a LoRA are not read"),
        (
            {f"{TO_Q}.lora_{half}.weight": torch.ones(2, 2) for half in ("down", "up")},
            f"1 layers stand in the file twice, such as {TO_Q}; one of each is read",
        ),
        (
            {
                f"{BLOCK}.attn1.to_v.lora_{half}.weight": torch.empty(shape)
                for half, shape in (("down", (5000, 8)), ("up", (8, 5000)))
            },
            "1 layers of too large a rank are not read",
        ),
        (
            {f"{BLOCK}.attn1.to_v.{part}.weight": torch.ones(shape) for part, shape in GLORA.items()},
            "GLoRA's products of 1 layers need the base model; only the low-rank part beside them is read",
        ),
        (
            kohya(random_factors(), torch.tensor(8.0)),
            f"3 layers stand in the file twice, such as {TO_Q}; one of each is read",
        ),
    ],
)
def test_what_is_not_read_is_a_problem(tmp_path: Path, extra: dict[str, Tensor], problem: str) -> None:
    factors = random_factors()
    save_file(peft(factors, "") | extra, tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    assert [
        line.replace(f"{BLOCK}.attn1.to_out.0", TO_Q).replace(f"{BLOCK}.attn2.to_k", TO_Q) for line in lora.problems
    ] == [problem]
    assert lora.family == "mini-a"
    update = lora.updates([TO_Q])[TO_Q]
    torch.testing.assert_close(update.up @ update.down, factors[TO_Q][1] @ factors[TO_Q][0])


def test_loha_lokr_and_full_differences_are_read_from_files(tmp_path: Path) -> None:
    """Against LyCORIS' dense formulas; the scale is alpha / rank, and 1 without low-rank parts."""
    torch.manual_seed(0)
    module = f"lora_unet_{TO_Q.replace('.', '_')}"
    w1a, w1b, w2a, w2b = torch.randn(96, 2), torch.randn(2, 96), torch.randn(96, 3), torch.randn(3, 96)
    small, full, first, second = torch.randn(4, 8), torch.randn(24, 12), torch.randn(24, 2), torch.randn(2, 12)
    cases = [
        (
            Format.LOHA,
            6,
            {"hada_w1_a": w1a, "hada_w1_b": w1b, "hada_w2_a": w2a, "hada_w2_b": w2b},
            0.5 * (w1a @ w1b) * (w2a @ w2b),
        ),
        (
            Format.LOKR,
            8,
            {"lokr_w1": small, "lokr_w2_a": first, "lokr_w2_b": second},
            0.5 * torch.kron(small, first @ second),
        ),
        (Format.LOKR, 48, {"lokr_w1": small, "lokr_w2": full}, torch.kron(small, full)),
        (Format.FULL, 96, {"diff": w1a @ w1b}, w1a @ w1b),
    ]
    for format, rank, parts, dense in cases:
        save_file(
            {f"{module}.{name}": tensor for name, tensor in parts.items()} | {f"{module}.alpha": torch.tensor(1.0)},
            tmp_path / "x",
        )
        lora = LoraFile.open(tmp_path / "x")
        assert (lora.format, lora.ranks, lora.shapes) == (format, [rank], {TO_Q: tuple(dense.shape)})
        update = lora.updates()[TO_Q]
        torch.testing.assert_close(update.up @ update.down, dense, atol=1e-5, rtol=1e-5)


def test_only_the_requested_layers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(kohya(random_factors(), torch.tensor(2.0)), tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    loaded: list[str] = []
    load = Header.load
    monkeypatch.setattr(
        Header, "load", lambda header, names: load(header, [loaded.append(name) or name for name in names])
    )  # type: ignore[func-returns-value]
    assert (lora.family, lora.ranks, lora.problems, len(lora.shapes)) == ("mini-a", [4], [], 3)
    assert loaded == []
    lora.updates([TO_Q])
    assert sorted(loaded) == sorted(name for name in lora.header.tensors if "attn1_to_q" in name)


NAMES = st.builds(
    lambda module, join, ending: module + join + ending,
    st.sampled_from(
        [
            "lora_unet_mid_block_attentions_0_proj_in",
            TO_Q,
            "a",
            "double_blocks.0.img_attn.qkv",
            "unet:0",
            "lora_te_text_model_encoder_layers_0_mlp_fc1",
        ]
    ),
    st.sampled_from([".", "_", ":"]),
    st.sampled_from(
        [ending.strip("._") for ending in ENDINGS]
        + ["lora_A.weight", "lora_B.x.weight", "lora_A", "lora_B.bias", "down", "up", "weight", ""]
    ),
)


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(NAMES, st.lists(st.integers(0, 4), max_size=4), min_size=1, max_size=8))
def test_any_names_and_shapes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, list[int]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    save_file({name: torch.ones(shape) for name, shape in shapes.items()}, path)
    try:
        lora = LoraFile.open(path)
        updates = lora.updates()
        assert (len(lora.data_hash), lora.family != "") == (64, True)
    except FileError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 800
        return
    assert {name: update.shape for name, update in updates.items()} == lora.shapes


def test_another_weight_gives_another_id(tmp_path: Path) -> None:
    for name, seed in ("a", 0), ("b", 1):
        save_file(diffusers(random_factors(seed=seed)), tmp_path / name)
    assert LoraFile.open(tmp_path / "a").id != LoraFile.open(tmp_path / "b").id


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda t: {"something.weight": torch.ones(2)}, FileUnsupported),
        (lambda t: {name: x for name, x in t.items() if ".down." in name}, FileCorrupt),
        (lambda t: {name: torch.ones(5, 96) if ".down." in name else x for name, x in t.items()}, FileCorrupt),
        (
            lambda t: {name: torch.empty(0, 96) if ".down." in name else torch.empty(96, 0) for name, x in t.items()},
            FileCorrupt,
        ),
        (lambda t: {name: torch.ones(4) if ".down." in name else x for name, x in t.items()}, FileCorrupt),
        (
            lambda t: {
                name: torch.ones(5000, 96) if ".down." in name else torch.ones(96, 5000) for name, x in t.items()
            },
            FileUnsupported,
        ),
        (lambda t: {f"{BLOCK}.attn1.to_q.oft_blocks": torch.ones(2, 3, 3)}, FileUnsupported),
        (
            lambda t: {f"{BLOCK}.attn1.to_q.weight": torch.ones(9), f"{BLOCK}.attn1.to_q.on_input": torch.ones(1)},
            FileUnsupported,
        ),
        (lambda t: {f"{BLOCK}.attn1.to_q.alpha": torch.tensor(4.0)}, FileUnsupported),
    ],
)
def test_invalid_loras_are_refused(tmp_path: Path, change: object, error: type[Exception]) -> None:
    save_file(change(diffusers(random_factors())), tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(error):
        LoraFile.open(tmp_path / "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    tensors = diffusers(random_factors())
    tensors[f"unet.{BLOCK}.attn1.to_q.lora.up.weight"][3, 1] = value
    save_file(tensors, tmp_path / "x")
    with pytest.raises(FileCorrupt, match="finite"):
        LoraFile.open(tmp_path / "x").updates()


def test_real_files_are_read(shared_loras: Path) -> None:
    found = {}
    for path in sorted(shared_loras.glob("**/*.safetensors")):
        lora = LoraFile.open(path)
        found[path.name] = (
            lora.format,
            lora.family,
            lora.ranks,
            len(lora.layers),
            {lora.scale(layer) for layer in lora.layers},
            lora.problems,
        )
    assert found == {
        "sd15-attnprocs-pokemon.safetensors": (Format.ATTN_PROCESSOR, "sd1", [4], 128, {1.0}, []),
        "sd15-cloneofsimo-disney-rank1.safetensors": (
            Format.CLONEOFSIMO,
            "sd1",
            [1],
            192,
            {1.0},
            ["2 embeddings are not read"],
        ),
        "sd15-diffusers-bf16.safetensors": (
            Format.DIFFUSERS,
            "sd2",
            [4],
            128,
            {1.0},
            [],
        ),  # its keys and values read text states of width 1024
        "sd15-diffusers-brain-mri.safetensors": (Format.DIFFUSERS, "sd1", [4], 128, {1.0}, []),
        "sd15-diffusers-peft-anime.safetensors": (Format.PEFT, "sd1", [4], 96, {4.0}, []),
        "adapter_model.safetensors": (Format.PEFT, "sd1", [4], 96, {4.0}, []),
    }


def test_a_real_lora_in_two_formats_has_one_hash(shared_loras: Path) -> None:
    copies = [
        LoraFile.open(shared_loras / "sd15-diffusers-peft-anime.safetensors"),
        LoraFile.open(shared_loras / "sd15-peft-anime" / "adapter_model.safetensors"),
    ]
    assert copies[0].data_hash == copies[1].data_hash
    for (layer, first), (other, second) in zip(copies[0].updates().items(), copies[1].updates().items(), strict=True):
        assert layer == other
        torch.testing.assert_close(first.up @ first.down, second.up @ second.down)
