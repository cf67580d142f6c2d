"""Model-J's classifiers from a hub on loopback, one repository each, and ProbeX's protocol on them."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from loradex.index.milvus.rows import digest
from loradex.retrieval.errors import FetchError
from loradex.retrieval.probex.sketch import SketchConfig
from loradex.retrieval.training.labelled_classifiers import CATEGORIES_KEY
from scripts.model_j import CLASSIFIER_LAYERS, DATASET
from scripts.model_j.__main__ import main
from scripts.model_j.category_protocol import choose_closed_form
from scripts.model_j.classifiers import fetch_classifiers
from scripts.model_j.fetch import FetchOptions
from tests.hub import SHA, Handler, Hub, serve
from tests.tiny_classifiers import NAMES, load_classifiers, write_classifiers

LAYER = CLASSIFIER_LAYERS["SupViT"]
OTHER = "vit.encoder.layer.0.attention.attention.query"
COUNTS = {"train": 60, "val": 12, "test": 12}


class ManyRepositories(Handler):
    """A hub of one dataset and many models, each a folder."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for kind in ("api/datasets", "api/models", "datasets"):
            if path.startswith(start := f"/{kind}/"):
                owner, name, *rest = path.removeprefix(start).split("/")
                return (
                    self.send_listing(f"{owner}/{name}", rest)
                    if kind.startswith("api")
                    else self.file(f"{owner}/{name}", rest[2:])
                )
        if path.startswith("/cdn/"):
            return super().do_GET()
        owner, name, *rest = path.removeprefix("/").split("/")
        return self.file(f"{owner}/{name}", rest[2:])

    def send_listing(self, name: str, rest: list[str]) -> None:
        folder = self.hub.folder / name
        if not folder.is_dir():
            return self.respond(404, b"", X_Error_Code="RepoNotFound")
        if rest[:1] != ["tree"]:
            return self.respond(
                200, json.dumps({"id": name, "sha": SHA, "siblings": []}).encode(), Content_Type="application/json"
            )
        files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
        entries = [
            {"type": "file", "path": file.relative_to(folder).as_posix(), "oid": SHA, "size": file.stat().st_size}
            for file in files
        ]
        return self.respond(200, json.dumps(entries).encode(), Content_Type="application/json")

    def file(self, name: str, rest: list[str]) -> None:
        place = "/".join([name, *rest])
        size = str((self.hub.folder / place).stat().st_size)
        self.respond(
            302,
            b"",
            Location=f"{self.hub.cdn_url}/cdn/{place}",
            ETag=f'"{place}"',
            X_Repo_Commit=SHA,
            X_Linked_Size=size,
            X_Linked_ETag=f'"{digest(place)}"',
        )


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Models whose categories change the best layer, and tables that name them.

    One table is of another subset, and one name leads out of the owner's repositories.
    """
    hub, number = Hub(tmp_path / "hub", DATASET), 0
    torch.manual_seed(0)
    base, directions = torch.randn(24, 20), torch.randn(len(NAMES), 24, 20)
    for split, count in COUNTS.items():
        names = []
        for _ in range(count):
            members = torch.rand(len(NAMES)) < 0.5
            members[0] |= not members.any()
            weight = base + 0.05 * torch.tensordot(members.float(), directions, 1) + 0.02 * torch.randn(24, 20)
            names.append(f"ProbeX/Model-J__SupViT__model_idx_{number:04d}")
            chosen = [name for name, member in zip(NAMES, members.tolist(), strict=True) if member]
            tensors = {
                f"{LAYER}.weight": weight,
                f"{OTHER}.weight": torch.randn(6, 6),
                "padding": torch.zeros(100_000),
                "classifier.weight": torch.randn(3, 24),
            }
            (hub.folder / names[-1]).mkdir(parents=True)
            save_file(tensors, hub.folder / names[-1] / "model.safetensors", {CATEGORIES_KEY: repr(chosen)})
            number += 1
        write_table(
            hub.folder / DATASET / "SupViT" / f"{'validation' if split == 'val' else split}-00000-of-00001.csv",
            [*names, "evil/../../model"],
        )
    write_table(hub.folder / DATASET / "DINO" / "train.csv", ["ProbeX/Model-J__DINO__model_idx_0000"])
    monkeypatch.setattr("tests.hub.Handler", ManyRepositories)
    with serve(hub, monkeypatch):
        yield hub


def write_table(path: Path, names: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("hf_model_id", "hf_model_url"), *((name, "https://x") for name in names)])


def test_one_command_fetches_a_layer_and_measures(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each encoder is above chance, with interval, chance and n; a small part of the bytes is read."""
    out = tmp_path / "out"
    arguments = [
        "reproduce",
        "SupViT",
        "--out",
        str(out),
        "--endpoint",
        served.url,
        "--epochs",
        "25",
        "--seeds",
        "0",
        "--jobs",
        "4",
    ]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert document == json.loads((out / "protocol.json").read_text())
    assert (document["layer"], document["models"], document["categories"]) == (LAYER, COUNTS, len(NAMES))
    results: dict[str, Any] = {row["encoder"]: row for row in document["results"]}
    assert results.keys() == {"dense linear", "Loradex", "ProbeX as published", "MVProbe"}
    for name, row in results.items():
        metric = row["accuracy"]
        assert (
            metric["low"] <= metric["value"] <= metric["high"] and metric["n"] == 12 and 0.5 <= metric["chance"] < 0.6
        )
        assert metric["value"] > (0.85 if name in ("dense linear", "Loradex") else 0.45), (
            name
        )  # probes had too few epochs to learn
    assert results["dense linear"]["parameters"] == 24 * 20 * len(NAMES)
    full = served.folder / "ProbeX" / "Model-J__SupViT__model_idx_0000" / "model.safetensors"
    part = out / "train" / "Model-J__SupViT__model_idx_0000" / "model.safetensors"
    assert (
        torch.equal(load_file(part)[f"{LAYER}.weight"], load_file(full)[f"{LAYER}.weight"])
        and len(load_file(part)) == 1
    )
    with safe_open(part, "pt") as one, safe_open(full, "pt") as other:
        assert one.metadata() == other.metadata()
    assert "84 models fetched" in captured.err and part.stat().st_size < full.stat().st_size / 50
    served.cdn_requests.clear()
    assert main(["fetch", "SupViT", "--out", str(out), "--endpoint", served.url]) == 0
    assert "0 models fetched, 84 already there" in capsys.readouterr().out
    assert not any("model.safetensors" in path for path, _ in served.cdn_requests)


def test_every_layer_is_tried_if_the_files_have_several(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["fetch", "SupViT", "--out", str(out), "--endpoint", served.url, "--layers", LAYER, OTHER]) == 0
    capsys.readouterr()
    assert main(["protocol", str(out), "--epochs", "25", "--seeds", "0"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["layers"].keys() == {LAYER, OTHER} and document["layer"] == LAYER
    assert document["layers"][LAYER]["Loradex"] > 0.85 > document["layers"][OTHER]["Loradex"]


def test_missing_tables_layers_and_models_are_reported(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A subset without tables, a layer that no model has, and a folder with too few models."""
    with pytest.raises(FetchError, match="expected tables of ResNet"):
        fetch_classifiers(FetchOptions("ResNet", tmp_path / "none", endpoint=served.url))
    assert main(["fetch", "SupViT", "--out", str(tmp_path / "x"), "--endpoint", served.url, "--layers", "no.such"]) == 1
    assert "name layers that the files have" in capsys.readouterr().err
    assert main(["fetch", "SupViT", "--out", str(tmp_path / "y"), "--endpoint", served.url, "--limit", "1"]) == 0
    assert main(["protocol", str(tmp_path / "y")]) == 1
    assert "expected models with categories in train, val and test" in capsys.readouterr().err


def test_the_closed_form_keeps_a_direction_for_each_category(tmp_path: Path) -> None:
    """Even where categories outnumber a sketch's default rank, as in CIFAR-100."""
    write_classifiers(tmp_path)
    dataset = load_classifiers(tmp_path)
    config, score = choose_closed_form(dataset, next(iter(dataset.models)))
    assert isinstance(config.model, SketchConfig)
    assert (config.model.rank, config.model.wide) == (len(dataset.names), 128) and score > 0.9
