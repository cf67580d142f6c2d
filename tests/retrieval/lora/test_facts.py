"""Facts as trainers and LoRA managers write them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import MAX_SIDE_CAR_BYTES, MAX_WORDS, Facts, parse_metadata, read_facts

KOHYA = {
    "ss_network_module": "networks.lora",
    "ss_output_name": "cat_v2",
    "ss_base_model_version": "sd_v1",
    "ss_tag_frequency": json.dumps(
        {"10_cat": {"1cat": 20, "sitting": 5}, "5_more": {"sitting": 30, "": 3, "bad": "x", "worse": -1}}
    ),
    "ss_datasets": json.dumps(
        [{"subsets": [{"class_tokens": "mycat cat", "num_repeats": 10}, {"class_tokens": None}]}]
    ),
    "ss_training_comment": "None",
}
LORA_MANAGER = {
    "model_name": "My Cat",
    "base_model": "SD 1.5",
    "tags": ["animal", "cat"],
    "notes": "works at 0.8",
    "civitai": {"trainedWords": ["mycat", "sleeping cat"]},
}
A1111 = {
    "description": "a cat",
    "sd version": "SD1",
    "activation text": "mycat, fluffy",
    "preferred weight": 0.7,
    "notes": "",
}
CIVITAI = {
    "id": 1,
    "name": "v1.0",
    "baseModel": "SDXL 1.0",
    "trainedWords": ["cat, fluffy"],
    "model": {"name": "Cat", "type": "LORA"},
}
STABILITY_MATRIX = {
    "ModelName": "Cat",
    "UserTitle": None,
    "BaseModel": "Pony",
    "TrainedWords": ["mycat"],
    "Tags": ["pet"],
    "Hashes": {"SHA256": "00"},
}


def test_metadata_of_kohya() -> None:
    facts = parse_metadata(KOHYA)
    assert facts == Facts("cat_v2", "sd_v1", "kohya", ("mycat cat",), ("sitting", "1cat"))


@pytest.mark.parametrize(
    ("metadata", "trainer"),
    [
        ({"ss_network_module": "lycoris.kohya"}, "kohya with LyCORIS"),
        ({"ot_branch": "master"}, "OneTrainer"),
        ({"software": '{"name": "ai-toolkit", "version": "0.1"}'}, "ai-toolkit"),
        ({"unet:0:rank": "4"}, "cloneofsimo"),
        ({"lora_adapter_metadata": "{}"}, "PEFT"),
        ({"format": "pt"}, None),
    ],
)
def test_trainer(metadata: dict[str, str], trainer: str | None) -> None:
    assert parse_metadata(metadata).trainer == trainer


def test_modelspec() -> None:
    metadata = {
        "modelspec.title": "Cat",
        "modelspec.architecture": "flux-1-dev/lora",
        "modelspec.trigger_phrase": "mycat",
        "modelspec.tags": "pet, cat",
    }
    assert parse_metadata(metadata) == Facts("Cat", "flux-1-dev/lora", None, ("mycat",), ("pet", "cat"))


@pytest.mark.parametrize(
    ("ending", "entries", "expected"),
    [
        (
            ".metadata.json",
            LORA_MANAGER,
            Facts("My Cat", "SD 1.5", None, ("mycat", "sleeping cat"), ("animal", "cat"), "works at 0.8"),
        ),
        (".json", A1111, Facts(None, "SD1", None, ("mycat", "fluffy"), (), "a cat")),
        (".civitai.info", CIVITAI, Facts("Cat", "SDXL 1.0", None, ("cat, fluffy",))),
        (".cm-info.json", STABILITY_MATRIX, Facts("Cat", "Pony", None, ("mycat",), ("pet",))),
    ],
)
def test_each_side_car(tmp_path: Path, ending: str, entries: dict[str, object], expected: Facts) -> None:
    side_car = tmp_path / f"cat.v2{ending}"
    side_car.write_text(json.dumps(entries))
    before = side_car.read_bytes(), side_car.stat().st_mtime_ns
    facts = read_facts(tmp_path / "cat.v2.safetensors", {})
    assert facts.sources == (side_car.name,)
    assert facts.merged(Facts()) == Facts(
        expected.title,
        expected.base_model,
        expected.trainer,
        expected.trigger_words,
        expected.tags,
        expected.notes,
        facts.sources,
    )
    assert (side_car.read_bytes(), side_car.stat().st_mtime_ns) == before


def test_the_order_of_sources(tmp_path: Path) -> None:
    for ending, entries in {".metadata.json": LORA_MANAGER, ".json": A1111, ".civitai.info": CIVITAI}.items():
        (tmp_path / f"cat{ending}").write_text(json.dumps(entries))
    facts = read_facts(tmp_path / "cat.safetensors", KOHYA)
    assert facts.title == "My Cat"
    assert facts.base_model == "SD1"
    assert facts.trainer == "kohya"
    assert facts.trigger_words == ("mycat", "fluffy", "sleeping cat", "cat, fluffy", "mycat cat")
    assert facts.sources == ("cat.json", "cat.metadata.json", "cat.civitai.info", "header")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b"[" * 100_000, b" " * (MAX_SIDE_CAR_BYTES + 1)]
)
def test_a_broken_side_car_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cat.json").write_bytes(content)
    facts = read_facts(tmp_path / "cat.safetensors", KOHYA)
    assert facts.broken == ("cat.json",)
    assert facts.title == "cat_v2"


def test_invalid_entries_are_left_out() -> None:
    invalid = {
        "model_name": 3,
        "base_model": ["x"],
        "tags": [None, 1, {"name": "kept"}, "a" * 1000],
        "civitai": "no",
        "notes": {"x": 1},
    }
    facts = read_facts(
        Path("x.safetensors"), {"ss_tag_frequency": json.dumps([1]), "ss_datasets": '{"a": 1}', "software": "[]"}
    )
    assert facts == Facts()
    from loradex.retrieval.lora.facts import parse_lora_manager

    assert parse_lora_manager(invalid) == Facts(tags=("kept", "a" * 200))
    many = parse_lora_manager({"tags": [str(i) for i in range(10_000)]})
    assert len(many.tags) == MAX_WORDS


def test_facts_scales_and_hash_of_a_file(tmp_path: Path) -> None:
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn{}_to_q"
    tensors = {}
    for i, alpha in ((1, 4.0), (2, 2.0)):
        module = name.format(i)
        tensors |= {
            f"{module}.lora_down.weight": torch.ones(4, 8),
            f"{module}.lora_up.weight": torch.ones(8, 4),
            f"{module}.alpha": torch.tensor(alpha),
        }
    save_file(tensors, tmp_path / "cat.safetensors", metadata=KOHYA)
    lora = LoraFile.open(tmp_path / "cat.safetensors")
    assert lora.facts.title == "cat_v2"
    assert lora.scales == [0.5, 1.0]
    import hashlib

    assert lora.sha256 == hashlib.sha256((tmp_path / "cat.safetensors").read_bytes()).hexdigest()
