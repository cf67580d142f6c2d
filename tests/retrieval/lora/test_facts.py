"""Facts as trainers and LoRA managers write them."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.facts import (
    MAX_SIDE_CAR_BYTES,
    MAX_WORDS,
    Facts,
    clean_text,
    header_facts,
    parse_lora_manager,
    parse_metadata,
    parse_text,
    read_facts,
)

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
RGTHREE = {
    "name": "Cat - v1",
    "baseModel": "SDXL 1.0",
    "trainedWords": [
        {"word": "mycat", "civitai": True, "count": 20, "metadata": True},
        {"word": "sitting", "count": 9, "metadata": True},
        {"word": "my own", "user": True},
        {"word": "plain"},
        "as a text",
        3,
    ],
    "userNote": "0.7 is best",
    "raw": {"metadata": {"ss_tag_frequency": {"10_cat": {"sitting": 9}}}},
}
SWARM = {
    "modelspec.name": "folder/cat.safetensors",
    "modelspec.title": "Cat",
    "modelspec.description": "<p>A cat.</p><p>Use &lt;0.8</p>",
    "modelspec.trigger_phrase": "mycat\nfluffy",
    "modelspec.tags": ["pet"],
    "modelspec.standard_width": 1024,
}
CIVITAI_MODEL = {
    "name": "Cat",
    "tags": ["pet"],
    "modelVersions": [{"name": "v1", "baseModel": "Flux.1 D", "trainedWords": ["mycat"], "files": []}],
}
OTHER_JSON = {"Trigger Words": ["mycat", "a, b"], "base model": "Pony", "Title": "Cat", "description": "a cat"}
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
        ({"software": "a trainer"}, "a trainer"),
        ({"software": "[1]"}, None),
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
    ("metadata", "triggers", "tags"),
    [
        # what ai-toolkit writes for a word, and what only looks like it
        ({"ss_tag_frequency": {"1_ohwx person": {"ohwx person": 1}}}, ("ohwx person",), ()),
        ({"ss_tag_frequency": {"1_ohwx, man\nhat": {"ohwx, man\nhat": 1}}}, ("ohwx", "man", "hat"), ()),
        ({"ss_tag_frequency": {"10_ohwx": {"ohwx": 30}}}, ("ohwx",), ("ohwx",)),
        ({"ss_tag_frequency": {"1_ohwx": {"hat": 1}}}, ("ohwx",), ("hat",)),
        # kohya's folders
        ({"ss_dataset_dirs": {"10_zxc girl": {"n_repeats": 10}}}, ("zxc girl",), ()),
        ({"ss_tag_frequency": {"10_zxc girl": {"hat": 2}, "5_zxc girl": {"hat": 3}}}, ("zxc girl",), ("hat",)),
        ({"ss_dataset_dirs": {"1_girl": {}, "8_abc": {}}, "ss_reg_dataset_dirs": {"1_girl": {}}}, ("abc",), ()),
        *(({"ss_dataset_dirs": {name: {}}}, (), ()) for name in ("20_img", "1_", "images", "3_train_data 2")),
        ({"ss_dataset_dirs": {"10_zxc girl": {}}, "trigger_word": "stated"}, ("stated",), ()),
        (
            {"ss_datasets": [{"subsets": [{"class_tokens": "zxc girl"}, {"class_tokens": "girl", "is_reg": True}]}]},
            ("zxc girl",),
            (),
        ),
        ({"ss_datasets": [{"subsets": [{"class_tokens": "img"}, 3]}, None]}, (), ()),
        # the words that a trainer or a person states
        ({"trigger_words": ["a, b", "c"]}, ("a, b", "c"), ()),
        ({"Trigger Words": "a;b, c\r\nd"}, ("a;b", "c", "d"), ()),
        ({"trained_words": "a photo of ohwx", "ss_trigger_words": "x"}, ("a photo of ohwx", "x"), ()),
        ({"modelspec.trigger_phrase": "[a] b, <lora:cat:0.8>, <cat-toy>"}, ("[a] b", "<cat-toy>"), ()),
        ({"ss_tag_frequency": {"watercolour": 20, "tree": 25}}, (), ("tree", "watercolour")),
        ({"ss_tag_frequency": {"x": None, "y": {"a": 3, "b": None, "c": "4", "": 9, "e": 2.5, "f": True}}}, (), ("a",)),
    ],
)
def test_words_of_a_header(metadata: dict[str, object], triggers: tuple[str, ...], tags: tuple[str, ...]) -> None:
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    facts = header_facts(texts)
    assert (facts.trigger_words, facts.tags) == (triggers, tags)


def test_the_name_of_a_folder_is_a_guess_for_lack_of_words(tmp_path: Path) -> None:
    metadata = {"ss_dataset_dirs": '{"10_zxc girl": {}}'}
    assert read_facts(tmp_path / "cat.safetensors", metadata).trigger_words == ("zxc girl",)
    (tmp_path / "cat.txt").write_text("mine")
    facts = read_facts(tmp_path / "cat.safetensors", metadata)
    assert (facts.trigger_words, facts.sources) == (("mine",), ("cat.txt",))


@pytest.mark.parametrize(
    ("metadata", "title"),
    [
        ({"modelspec.title": "Ink", "name": "b", "ss_output_name": "c"}, "Ink"),
        ({"modelspec.title": "LoRA@1700000000.25", "ss_output_name": "c"}, "c"),
        ({"name": "[name]", "ss_output_name": "c"}, "c"),
        ({"name": "My face", "ss_output_name": "my_face_v1"}, "My face"),
        ({"modelspec.title": "\ufeff[red]T\0i\x1b[31mtle[/red]\u202e\n"}, "[red]Title[/red]"),
        ({"modelspec.title": "two\nlines"}, "two lines"),
        ({"modelspec.title": "\n\u200b"}, None),
    ],
)
def test_titles(metadata: dict[str, str], title: str | None) -> None:
    assert parse_metadata(metadata).title == title


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ohwx person, film grain\nred hat", Facts(trigger_words=("ohwx person", "film grain", "red hat"))),
        ("a\r\nb\rc\u2028d", Facts(trigger_words=("a", "b", "c", "d"))),
        ("", Facts()),
        ("Works best at 0.7. Do not overdo it.", Facts(notes="Works best at 0.7. Do not overdo it.")),
        ("https://example.org/models/1", Facts(notes="https://example.org/models/1")),
        ("A cat LoRA.\nTrigger words: mycat, fluffy", Facts(trigger_words=("mycat", "fluffy"), notes="A cat LoRA.")),
        ("**Activation text:**\nmycat", Facts(trigger_words=("mycat",))),
    ],
)
def test_texts_are_words_or_notes(text: str, expected: Facts) -> None:
    assert parse_text(text) == expected


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("\ufeffmycat".encode(), ("mycat",)),
        ("größe".encode("cp1252"), ("größe",)),
        ("größe".encode("utf-16"), ("größe",)),
        ("👩‍🎨, 猫、犬".encode(), ("👩‍🎨", "猫", "犬")),
        (b"a\0b", ()),
        (b"x" * 2**17, ()),
    ],
)
def test_text_files(tmp_path: Path, content: bytes, words: tuple[str, ...]) -> None:
    (tmp_path / "cat.txt").write_bytes(content)
    assert read_facts(tmp_path / "cat.safetensors", {}).trigger_words == words
    (tmp_path / "cat.txt").rename(tmp_path / "cat.description.txt")
    assert read_facts(tmp_path / "cat.safetensors", {}).trigger_words == ()


def test_texts_are_bounded() -> None:
    assert clean_text("👩‍🎨" * 10_000) is not None
    assert len(clean_text("x\n" * 10**6) or "") <= 200
    html = parse_metadata({"modelspec.description": "<p onclick='x'>" * 10**5 + "<script>a &#27;[2Jb</script>"})
    assert html.notes is None or len(html.notes) <= 2000
    assert parse_metadata({"modelspec.description": "<b>a</b> &#8238;<br/>b <3 <0.8>"}).notes == "a\nb <3 <0.8>"
    assert len(parse_text("word, " * 10_000).trigger_words) == 1
    many = parse_metadata({"trigger_words": ",".join(map(str, range(10**6)))})
    assert len(many.trigger_words) == MAX_WORDS


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
        (
            ".safetensors.rgthree-info.json",
            RGTHREE,
            Facts("Cat - v1", "SDXL 1.0", None, ("mycat", "my own", "plain", "as a text"), ("sitting",), "0.7 is best"),
        ),
        (".rgthree-info.json", {"triggerWords": ["mycat"]}, Facts(trigger_words=("mycat",))),
        (".swarm.json", SWARM, Facts("Cat", None, None, ("mycat", "fluffy"), ("pet",), "A cat.\nUse <0.8")),
        (".json", CIVITAI_MODEL, Facts("Cat", "Flux.1 D", None, ("mycat",), ("pet",))),
        (".json", OTHER_JSON, Facts("Cat", "Pony", None, ("mycat", "a, b"), (), "a cat")),
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
    (tmp_path / "cat.safetensors.rgthree-info.json").write_text(json.dumps(RGTHREE))
    (tmp_path / "cat.txt").write_text("by hand")
    facts = read_facts(tmp_path / "cat.safetensors", KOHYA)
    assert facts.title == "My Cat"
    assert facts.base_model == "SD1"
    assert facts.trainer == "kohya"
    assert facts.trigger_words == (
        *("mycat", "fluffy", "by hand", "sleeping cat", "my own", "plain", "as a text", "cat, fluffy", "mycat cat"),
    )
    assert facts.sources == (
        "cat.json",
        "cat.txt",
        "cat.metadata.json",
        "cat.safetensors.rgthree-info.json",
        "cat.civitai.info",
        "header",
    )


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
            f"{module}.alpha": torch.full((1,) * i, alpha),  # some files have it as (1, 1)
        }
    save_file(tensors, tmp_path / "cat.safetensors", metadata=KOHYA)
    lora = LoraFile.open(tmp_path / "cat.safetensors")
    assert lora.facts.title == "cat_v2"
    assert lora.scales == [0.5, 1.0]
    import hashlib

    assert lora.sha256 == hashlib.sha256((tmp_path / "cat.safetensors").read_bytes()).hexdigest()
