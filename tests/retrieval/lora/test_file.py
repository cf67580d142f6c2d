"""LoRA files in several serialisations give the same updates; broken ones end in a typed error."""

import json
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

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
LAYERS = {f"{BLOCK}.attn1.to_q": (96, 96), f"{BLOCK}.attn2.to_k": (96, 128), f"{BLOCK}.attn1.to_out.0": (96, 96)}


def factors(rank: int = 4, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    torch.manual_seed(seed)
    return {layer: (torch.randn(rank, width), torch.randn(out, rank)) for layer, (out, width) in LAYERS.items()}


def diffusers(made: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    return {
        f"unet.{layer}.lora.{part}.weight": t
        for layer, pair in made.items()
        for part, t in zip(("down", "up"), pair, strict=True)
    }


def peft(
    made: dict[str, tuple[Tensor, Tensor]], prefix: str = "base_model.model.", adapter: str = ""
) -> dict[str, Tensor]:
    return {
        f"{prefix}{layer}.lora_{part}{adapter}.weight": t
        for layer, pair in made.items()
        for part, t in zip("AB", pair, strict=True)
    }


def attn_processor(made: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    tensors = {}
    for layer, pair in made.items():
        block, _, to = layer.removesuffix(".0").rpartition(".")
        tensors |= {
            f"{block}.processor.{to}_lora.{part}.weight": t for part, t in zip(("down", "up"), pair, strict=True)
        }
    return tensors


@pytest.mark.parametrize(
    ("write", "form"),
    [
        (diffusers, Format.DIFFUSERS),
        (peft, Format.PEFT),
        (attn_processor, Format.ATTN_PROCESSOR),
        (lambda made: peft(made, "unet.", ".default"), Format.PEFT),
    ],
)
def test_every_serialisation_gives_the_same_updates_and_id(tmp_path: Path, write: object, form: Format) -> None:
    made = factors()
    save_file(write(made), tmp_path / "x.safetensors")  # type: ignore[operator]
    lora = LoraFile.open(tmp_path / "x.safetensors")
    assert lora.format is form
    assert (lora.family, lora.ranks, lora.shapes) == ("mini-a", [4], dict(sorted(LAYERS.items())))
    for layer, update in lora.updates().items():
        torch.testing.assert_close(update.up @ update.down, made[layer][1] @ made[layer][0])
    save_file(diffusers(made), tmp_path / "y.safetensors", metadata={"class_name": "dog"})
    assert lora.id == LoraFile.open(tmp_path / "y.safetensors").id


GLORA = {"a1": (96, 2), "a2": (2, 96), "b1": (96, 2), "b2": (2, 96)}
TO_Q = f"{BLOCK}.attn1.to_q"


def kohya(made: dict[str, tuple[Tensor, Tensor]], alpha: Tensor | None = None, join: str = ".") -> dict[str, Tensor]:
    tensors = {}
    for layer, pair in made.items():
        module = "lora_unet_" + layer.replace(".", "_")
        tensors |= {f"{module}{join}lora_{part}.weight": t for part, t in zip(("down", "up"), pair, strict=True)}
        tensors |= {} if alpha is None else {f"{module}.alpha": alpha.clone()}
    return tensors


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
    made = factors()
    save_file(kohya(made, alpha), tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    assert (lora.format, lora.family, lora.scale(TO_Q)) == (Format.KOHYA, "mini-a", scale)
    for layer, update in lora.updates().items():
        torch.testing.assert_close(update.up @ update.down, scale * made[layer][1] @ made[layer][0])


@pytest.mark.parametrize(
    "alpha", [torch.tensor(float("nan")), torch.tensor(float("inf")), torch.ones(2), torch.empty(0)]
)
def test_an_alpha_that_is_no_number_is_refused(tmp_path: Path, alpha: Tensor) -> None:
    save_file(kohya(factors(), alpha), tmp_path / "x")
    with pytest.raises(FileCorrupt, match="alpha"):
        LoraFile.open(tmp_path / "x").updates([TO_Q])


def test_underscores_throughout_are_read(tmp_path: Path) -> None:
    made = factors()
    tensors = {name.replace("lora_unet_", "lora_unet_unet_"): tensor for name, tensor in kohya(made, join="_").items()}
    assert "lora_unet_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k_lora_down.weight" in tensors
    save_file(tensors, tmp_path / "x")
    save_file(diffusers(made), tmp_path / "y")
    assert LoraFile.open(tmp_path / "x").data_hash == LoraFile.open(tmp_path / "y").data_hash


def test_a_hash_is_of_all_that_makes_the_update(tmp_path: Path) -> None:
    made = factors()
    changes = {
        "plain": kohya(made),
        "alpha of 1": kohya(made, torch.tensor(4.0)),
        "alpha": kohya(made, torch.tensor(2.0)),
        "half": {name: tensor.half() for name, tensor in kohya(made).items()},
        "magnitude": kohya(made) | {f"lora_unet_{TO_Q.replace('.', '_')}.dora_scale": torch.ones(96, 1)},
        "other layer": {name.replace("attn1_to_q", "attn1_to_v"): tensor for name, tensor in kohya(made).items()},
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
        ({f"{BLOCK}.attn1.to_v.diff": torch.empty(5000, 5000)}, "1 layers of too large a rank are not read"),
        (
            {f"{BLOCK}.attn1.to_v.{part}.weight": torch.ones(shape) for part, shape in GLORA.items()},
            "GLoRA's products of 1 layers need the base model; only the low-rank part beside them is read",
        ),
        (kohya(factors(), torch.tensor(8.0)), f"3 layers stand in the file twice, such as {TO_Q}; one of each is read"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, extra: dict[str, Tensor], problem: str) -> None:
    made = factors()
    save_file(peft(made, "") | extra, tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    assert [
        line.replace(f"{BLOCK}.attn1.to_out.0", TO_Q).replace(f"{BLOCK}.attn2.to_k", TO_Q) for line in lora.problems
    ] == [problem]
    assert lora.family == "mini-a"
    update = lora.updates([TO_Q])[TO_Q]
    torch.testing.assert_close(update.up @ update.down, made[TO_Q][1] @ made[TO_Q][0])


def test_loha_lokr_and_full_differences_are_read_from_files(tmp_path: Path) -> None:
    """LyCORIS's formulas, dense; the scale is alpha / rank, and 1 where nothing is of low rank."""
    torch.manual_seed(0)
    module = f"lora_unet_{TO_Q.replace('.', '_')}"
    w1a, w1b, w2a, w2b = torch.randn(96, 2), torch.randn(2, 96), torch.randn(96, 3), torch.randn(3, 96)
    small, whole, first, second = torch.randn(4, 8), torch.randn(24, 12), torch.randn(24, 2), torch.randn(2, 12)
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
        (Format.LOKR, 48, {"lokr_w1": small, "lokr_w2": whole}, torch.kron(small, whole)),
        (Format.FULL, 96, {"diff": w1a @ w1b}, w1a @ w1b),
    ]
    for form, rank, parts, dense in cases:
        save_file(
            {f"{module}.{name}": tensor for name, tensor in parts.items()} | {f"{module}.alpha": torch.tensor(1.0)},
            tmp_path / "x",
        )
        lora = LoraFile.open(tmp_path / "x")
        assert (lora.format, lora.ranks, lora.shapes) == (form, [rank], {TO_Q: tuple(dense.shape)})
        update = lora.updates()[TO_Q]
        torch.testing.assert_close(update.up @ update.down, dense, atol=1e-5, rtol=1e-5)


def test_only_the_bytes_of_the_layers_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(kohya(factors(), torch.tensor(2.0)), tmp_path / "x")
    lora = LoraFile.open(tmp_path / "x")
    asked: list[str] = []
    load = Header.load
    monkeypatch.setattr(
        Header, "load", lambda header, names: load(header, [asked.append(name) or name for name in names])
    )  # type: ignore[func-returns-value]
    assert (lora.family, lora.ranks, lora.problems, len(lora.shapes)) == ("mini-a", [4], [], 3)
    assert asked == []
    lora.updates([TO_Q])
    assert sorted(asked) == sorted(name for name in lora.header.tensors if "attn1_to_q" in name)


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
def test_any_names_and_shapes_end_in_an_answer_or_a_typed_error(
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


def test_peft_settings_scale_the_update(tmp_path: Path) -> None:
    made = factors()
    save_file(peft(made), tmp_path / "adapter_model.safetensors")
    for config, scale in ({"lora_alpha": 16}, 4.0), ({"lora_alpha": 16, "use_rslora": True}, 8.0), ({}, 1.0):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        update = LoraFile.open(tmp_path / "adapter_model.safetensors").updates()[f"{BLOCK}.attn1.to_q"]
        down, up = made[f"{BLOCK}.attn1.to_q"]
        torch.testing.assert_close(update.up @ update.down, scale * up @ down)


def test_settings_beside_a_file_are_those_of_the_adapter_alone(tmp_path: Path) -> None:
    for name in ("adapter_model.safetensors", "other.safetensors"):
        save_file(peft(factors()), tmp_path / name)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 12}))
    assert LoraFile.open(tmp_path / "adapter_model.safetensors").scale(TO_Q) == 3.0
    assert LoraFile.open(tmp_path / "other.safetensors").scale(TO_Q) == 1.0


def test_an_alpha_for_single_layers_is_a_plain_name(tmp_path: Path) -> None:
    made = factors()
    save_file(peft(made), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"lora_alpha": 4, "alpha_pattern": {"attn1.to_q": 8, r"^down_blocks\.0.*to_k$": 12}})
    )
    lora = LoraFile.open(tmp_path / "adapter_model.safetensors")
    assert [lora.scale(layer) for layer in (TO_Q, f"{BLOCK}.attn2.to_k", f"{BLOCK}.attn1.to_out.0")] == [2.0, 1.0, 1.0]
    assert lora.problems == ["alpha_pattern '^down_blocks\\\\.0.*to_k$' is a regular expression, which is not run"]


@pytest.mark.parametrize(
    "text",
    [
        "{nope",
        '{"lora_alpha": 1e999}',
        '{"lora_alpha": NaN}',
        '{"lora_alpha": "4"}',
        '{"lora_alpha": 1' + "0" * 400 + "}",
        "[" * 10**5,
    ],
)
def test_settings_that_are_no_settings_are_refused(tmp_path: Path, text: str) -> None:
    save_file(peft(factors()), tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(FileCorrupt, match="mend adapter_config.json"):
        LoraFile.open(tmp_path / "adapter_model.safetensors").updates()


def test_another_weight_gives_another_id(tmp_path: Path) -> None:
    for name, seed in ("a", 0), ("b", 1):
        save_file(diffusers(factors(seed=seed)), tmp_path / name)
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
def test_files_that_are_no_sound_lora_are_refused(tmp_path: Path, change: object, error: type[Exception]) -> None:
    save_file(change(diffusers(factors())), tmp_path / "x")  # type: ignore[operator]
    with pytest.raises(error):
        LoraFile.open(tmp_path / "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    tensors = diffusers(factors())
    tensors[f"unet.{BLOCK}.attn1.to_q.lora.up.weight"][3, 1] = value
    save_file(tensors, tmp_path / "x")
    with pytest.raises(FileCorrupt, match="finite"):
        LoraFile.open(tmp_path / "x").updates()


def test_real_files_are_read(shared_loras: Path) -> None:
    facts = {}
    for path in sorted(shared_loras.glob("**/*.safetensors")):
        lora = LoraFile.open(path)
        facts[path.name] = (
            lora.format,
            lora.family,
            lora.ranks,
            len(lora.layers),
            {lora.scale(layer) for layer in lora.layers},
            lora.problems,
        )
    assert facts == {
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
        ),  # its keys and values read 1024 wide states
        "sd15-diffusers-brain-mri.safetensors": (Format.DIFFUSERS, "sd1", [4], 128, {1.0}, []),
        "sd15-diffusers-peft-anime.safetensors": (Format.PEFT, "sd1", [4], 96, {4.0}, []),
        "adapter_model.safetensors": (Format.PEFT, "sd1", [4], 96, {4.0}, []),
    }


def test_one_real_lora_saved_twice_is_one(shared_loras: Path) -> None:
    twins = [
        LoraFile.open(shared_loras / "sd15-diffusers-peft-anime.safetensors"),
        LoraFile.open(shared_loras / "sd15-peft-anime" / "adapter_model.safetensors"),
    ]
    assert twins[0].data_hash == twins[1].data_hash
    for (layer, first), (other, second) in zip(twins[0].updates().items(), twins[1].updates().items(), strict=True):
        assert layer == other
        torch.testing.assert_close(first.up @ first.down, second.up @ second.down)
