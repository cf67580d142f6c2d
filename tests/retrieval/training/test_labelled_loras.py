"""Finding labelled LoRAs: layouts, sources of labels, splits."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from loradex.retrieval.errors import FileUnsupported
from loradex.retrieval.training.labelled_loras import (
    LabelledLora,
    add_grown,
    find_labelled_loras,
    imagenet_names,
    split_of,
)

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


def save(path: Path, rank: int = 2, seed: int = 0, **metadata: str) -> None:
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{LAYER}.lora.down.weight": torch.randn(rank, 320), f"{LAYER}.lora.up.weight": torch.randn(320, rank)}
    save_file(tensors, path, metadata=metadata or None)


def labelled(zoo: Path, labels: Path | None = None) -> list[tuple[str, str, str]]:
    return [
        (file.path.relative_to(zoo).as_posix(), file.split, file.class_name)
        for file in find_labelled_loras(zoo, labels)
    ]


def test_model_js_layout_gives_splits_and_labels(tmp_path: Path) -> None:
    save(tmp_path / "train" / "model_idx_0001" / "pytorch_lora_weights.safetensors", class_name="pizza")
    save(
        tmp_path / "test_holdout" / "model_idx_0002" / "pytorch_lora_weights.safetensors", imagenet_class_id="n02119789"
    )
    save(tmp_path / "elsewhere" / "x.safetensors", class_name="dog")
    assert labelled(tmp_path) == [
        ("train/model_idx_0001/pytorch_lora_weights.safetensors", "train", "pizza"),
        ("test_holdout/model_idx_0002/pytorch_lora_weights.safetensors", "test_holdout", "kit fox"),
    ]


def test_any_folder_is_split_by_the_names_of_concepts(tmp_path: Path) -> None:
    for number in range(200):
        save(tmp_path / f"{number}.safetensors", class_name=f"thing {number}")
    counts = {
        split: sum(file.split == split for file in find_labelled_loras(tmp_path))
        for split in ("train", "val_holdout", "test_holdout")
    }
    assert sum(counts.values()) == 200
    assert 8 <= counts["val_holdout"] <= 35
    assert 8 <= counts["test_holdout"] <= 35
    assert split_of("Pizza") == split_of("pizza")


def test_labels_come_from_a_table_else_the_header_else_the_sidecars(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", class_name="header")
    save(tmp_path / "b.safetensors", ss_tag_frequency=json.dumps({"1_x": {"castle": 9, "sky": 2}}))
    save(tmp_path / "c.safetensors")
    (tmp_path / "c.json").write_text(json.dumps({"activation text": "sks fox"}))
    save(tmp_path / "none.safetensors")
    assert {name: label for name, _, label in labelled(tmp_path)} == {
        "a.safetensors": "header",
        "b.safetensors": "castle",
        "c.safetensors": "sks fox",
    }
    table = tmp_path / "labels.csv"
    table.write_text("file,label,split\na.safetensors,my  pizza,train\nnone,dog,test_holdout\n")
    assert labelled(tmp_path, table) == [
        ("a.safetensors", "train", "my pizza"),
        ("none.safetensors", "test_holdout", "dog"),
    ]


def test_a_malformed_table_of_labels_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", class_name="x")
    for text, expected in (
        ("", "no rows"),
        ("name,what\n1,2\n", "columns file and label"),
        ("file,label,split\na,b,holdout\n", "holdout"),
    ):
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(FileUnsupported, match=expected):
            find_labelled_loras(tmp_path, tmp_path / "labels.csv")
    with pytest.raises(FileUnsupported, match="absent.csv"):
        find_labelled_loras(tmp_path, tmp_path / "absent.csv")


def test_a_folder_without_labels_is_refused_with_a_hint(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors")
    with pytest.raises(FileUnsupported, match="--labels"):
        find_labelled_loras(tmp_path)


def test_imagenet_names_cover_its_thousand_classes() -> None:
    names = imagenet_names()
    assert len(names) == 1000
    assert names["n02099601"] == "golden retriever"


def test_grown_files_stand_beside_real_ones_without_a_leak() -> None:
    """Validation and held-out concepts of real files are not trained on, however they are spelled."""
    real = [
        LabelledLora(Path("a"), "train", "Red Fox"),
        LabelledLora(Path("b"), "val_holdout", "crane"),
        LabelledLora(Path("c"), "test_holdout", "Pizza"),
    ]
    grown = [
        LabelledLora(Path("d"), "train", "pizza"),
        LabelledLora(Path("e"), "train", "Crane"),
        LabelledLora(Path("f"), "val_holdout", "red  fox"),
        LabelledLora(Path("g"), "val_holdout", "owl"),
        LabelledLora(Path("h"), "test_holdout", "cat"),
    ]
    files, left_out = add_grown(real, grown)
    assert left_out == 2
    assert [(file.path.name, file.split, file.class_name) for file in files if file.grown] == [
        ("f", "train", "Red Fox"),
        ("g", "train", "owl"),
        ("h", "test_holdout", "cat"),
    ]
    without_validation, _ = add_grown(real[:1], grown)
    assert {file.path.name for file in without_validation if file.split == "val_holdout"} == {"g"}
