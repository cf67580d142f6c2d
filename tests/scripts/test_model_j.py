"""Model-J from a hub on loopback: layers by range reads, broken and lying servers, and the papers' protocol on a tiny zoo."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from loradex.app.paths import MINIATURE
from loradex.retrieval.errors import FetchError, FileUnsupported
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.measure.baselines import DenseLinear
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.objective import ProbeTraining
from loradex.retrieval.probex.probes import ProbeConfig
from loradex.retrieval.space.text_encoder import TextEncoder
from loradex.retrieval.training.concept_dataset import Aim, Study, anchors_of
from loradex.retrieval.training.labelled_loras import find_labelled, imagenet_names
from scripts.model_j import LAYER, REPOSITORIES, encoders
from scripts.model_j.__main__ import main
from scripts.model_j.encoders import DenseScorer
from scripts.model_j.fetch import FetchOptions, fetch
from scripts.model_j.published import Exam
from tests.hub import (
    SHA,
    Handler,
    Hub,
    another_range,
    compressed,
    cut,
    more_than_asked,
    save_lora,
    serve,
    shapes,
    without_ranges,
)

CLIP = f"local-dir:{MINIATURE / 'encoder' / 'clip'}"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with five LoRAs of the true layout, one in each split but ``train``, which has two; cards and pictures lie beside them."""
    hub = Hub(tmp_path / "hub", REPOSITORIES["SD_200"])
    for number, split in enumerate(("train", "train", "val", "test", "test_holdout")):
        place = hub.folder / split / f"model_idx_{number:04d}"
        save_lora(
            place / "pytorch_lora_weights.safetensors",
            shapes(),
            rank=4,
            seed=number,
            imagenet_class_id="n02119789",
            seed_=str(number),
        )
        (place / "README.md").write_text("card")
        (place / "training_images").mkdir()
        (place / "training_images" / "0.jpeg").write_bytes(b"picture")
    (hub.folder / "train" / "other.safetensors").write_bytes(b"not in the layout")
    with serve(hub, monkeypatch):
        yield hub


def options(hub: Hub, out: Path, *layers: str, **more: Any) -> FetchOptions:
    return FetchOptions("SD_200", out, layers, hub.hub, **{"jobs": 2} | more)


def weights(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))


def test_layers_are_those_of_the_whole_files_for_two_percent_of_the_bytes(served: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = fetch(options(served, out, LAYER))
    names = [name for name in weights(served.folder) if "model_idx" in name]
    assert weights(out) == names
    assert (done.fetched, done.there, done.refused) == (5, 0, {})
    for name in names:
        whole, part = LoraFile.open(served.folder / name), LoraFile.open(out / name)
        assert list(part.layers) == [LAYER]
        assert part.header.metadata == whole.header.metadata
        assert part.header.tensors.keys() == {f"unet.{LAYER}.lora.{half}.weight" for half in ("down", "up")}
        expected, found = whole.updates([LAYER])[LAYER], part.updates([LAYER])[LAYER]
        assert torch.equal(found.up, expected.up)
        assert torch.equal(found.down, expected.down)
        with safe_open(out / name, "pt") as file:  # the official reader takes it
            assert file.get_tensor(f"unet.{LAYER}.lora.up.weight").dtype == torch.float32
    assert done.whole == sum((served.folder / name).stat().st_size for name in names)
    assert served.sent == done.received < 0.025 * done.whole
    assert len(served.asked) <= 3 * len(names)
    assert served.tokens == set()  # they stay with the hub
    assert [file.split for file in find_labelled(out)] == ["train", "train", "val", "test", "test_holdout"]


def test_far_layers_take_a_read_each_and_near_ones_share_it(served: Hub, tmp_path: Path) -> None:
    near, far = LAYER.replace("to_q", "to_v"), "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    fetch(options(served, tmp_path / "out", LAYER, near, far, jobs=1))
    path, _ = served.asked[-1]
    ranges = [asked for name, asked in served.asked if name == path]
    assert len(ranges) == 3  # the header, whose length the file before told, then two spans
    assert set(LoraFile.open(tmp_path / "out" / path.removeprefix("/cdn/")).layers) == {LAYER, near, far}


def test_layers_that_are_there_are_kept_when_others_are_asked_for(served: Hub, tmp_path: Path) -> None:
    out, other = tmp_path / "out", LAYER.replace("to_q", "to_k")
    fetch(options(served, out, LAYER))
    assert str(fetch(options(served, out, LAYER))) == "SD_200: 0 models fetched, 5 were there"
    assert fetch(options(served, out, other)).fetched == 5
    assert set(LoraFile.open(out / weights(out)[0]).layers) == {LAYER, other}


def test_whole_files_are_the_same_bytes(served: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fetch(options(served, out, LAYER, limit=1))
    done = fetch(options(served, out, limit=1))
    assert weights(out) == [name for name in weights(served.folder) if "model_idx" in name and "0001" not in name]
    assert all((out / name).read_bytes() == (served.folder / name).read_bytes() for name in weights(out))
    assert done.received == done.whole > 0
    assert fetch(options(served, out, limit=1)).there == 4


def test_an_answer_that_is_cut_is_asked_for_again(served: Hub, tmp_path: Path) -> None:
    served.fault = cut(times=3, keep=500)
    done = fetch(options(served, tmp_path / "out", LAYER))
    assert done.fetched == 5
    assert done.received == served.sent + 3 * 500


def test_a_run_that_a_broken_server_ended_goes_on(served: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fault(path: str, handler: Handler) -> bool:
        if "0003" in path:
            handler.answer(503, b"")
        return "0003" in path

    served.fault = fault
    with pytest.raises(FetchError, match="test/model_idx_0003.*6 tries: status 503; run it again"):
        fetch(options(served, out, LAYER, jobs=1))
    there = weights(out)
    assert 3 <= len(there) < 5
    served.fault = None
    served.asked.clear()
    done = fetch(options(served, out, LAYER, jobs=1))
    assert (done.there, done.fetched) == (len(there), 5 - len(there))
    assert {path.removeprefix("/cdn/") for path, _ in served.asked} == set(weights(out)) - set(there)
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without_ranges, "ignores Range; fetch whole files"),
        (another_range, "expected Content-Range bytes 0-8/"),
        (more_than_asked, "expected 9 bytes, found more"),
        (compressed, "found 'gzip'"),
    ],
)
def test_a_server_that_sends_something_else_is_refused(
    served: Hub, tmp_path: Path, fault: Callable[[str, Handler], bool], message: str
) -> None:
    served.fault = fault
    with pytest.raises(FetchError, match=message):
        fetch(options(served, tmp_path / "out", LAYER))
    assert weights(tmp_path / "out") == []


def test_lying_headers_are_refused_and_the_other_files_fetched(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, val, test = (
        served.folder / split / f"model_idx_{number:04d}" / "pytorch_lora_weights.safetensors"
        for number, split in ((0, "train"), (2, "val"), (3, "test"))
    )
    raw = train.read_bytes()
    train.write_bytes((2**60).to_bytes(8, "little") + raw[8:])
    val.write_bytes(raw + b"more")
    test.write_bytes(raw.replace(b'"F32"', b'"F99"', 1))
    status = main(["fetch", "SD_200", "--out", str(tmp_path / "out"), "--endpoint", served.hub, "--layers", LAYER])
    out, err = capsys.readouterr()
    assert status == 3
    assert out.startswith("SD_200: 2 models fetched, 0 were there, 3 refused, read ")
    assert len(err.splitlines()) == 3
    for number, reason in (
        (0, f"found a length of {2**60}"),
        (2, "is cut short or has something appended"),
        (3, "expected a known dtype"),
    ):
        assert any(f"model_idx_000{number}" in line and reason in line for line in err.splitlines())
    assert len(weights(tmp_path / "out")) == 2


def test_a_size_that_the_hub_lists_wrongly_is_noticed(served: Hub, tmp_path: Path) -> None:
    name = weights(served.folder)[-1]
    served.sizes[name] = (served.folder / name).stat().st_size + 8
    with pytest.raises(FetchError, match="expected Content-Range"):
        fetch(options(served, tmp_path / "out", LAYER))


@pytest.mark.parametrize(
    "name",
    [
        "train/model_idx_0000/../../../x.safetensors",
        "train/../../x.safetensors",
        "train/model_idx_0009/..\\x.safetensors",
        "train/C:/x",
    ],
)
def test_names_that_lead_out_of_the_folder_are_refused(served: Hub, tmp_path: Path, name: str) -> None:
    served.entries = [{"type": "file", "path": name, "oid": SHA, "size": 10}]
    with pytest.raises(FetchError, match="leads out of it"):
        fetch(options(served, tmp_path / "out", LAYER))
    assert not (tmp_path / "out").exists()


def test_a_layer_that_the_files_lack_ends_the_run_at_once(served: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        FileUnsupported,
        match=r"pytorch_lora_weights.safetensors: expected layer no\.such, found 128 others, the first down_blocks",
    ):
        fetch(options(served, tmp_path / "out", "no.such"))


def test_a_hub_that_is_not_there_is_one_line(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "folder", tmp_path / "nothing")
    assert main(["fetch", "SD_200", "--out", str(tmp_path / "out"), "--endpoint", served.hub]) == 1
    assert "expected weights as <split>/model_idx_NNNN" in capsys.readouterr().err
    assert main(["fetch", "SD_1k", "--out", str(tmp_path / "out"), "--endpoint", served.hub]) == 1
    out, err = capsys.readouterr()
    assert "expected a repository of models, found none that may be read" in err
    assert len(err.splitlines()) == 1
    assert out == ""


CONCEPTS = {  # numbers of ImageNet's classes; the first two have the same prompt
    "train": (
        2113186,
        2963159,
        1440764,
        1443537,
        1484850,
        1514668,
        1518878,
        1530575,
        1531178,
        1532829,
        1534433,
        1537544,
        1558993,
        1560419,
    ),
    "val_holdout": (1580077, 1582220, 2012849),
    "test_holdout": (1592084, 1601694, 1608432, 1614925, 1616318),
}
MODELS = {"train": 2, "val": 1, "test": 1, "val_holdout": 2, "test_holdout": 3}  # of each concept
LAYERS = {f"unet.{LAYER}": (40, 24), f"unet.{LAYER.replace('to_q', 'to_v')}": (32, 24)}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRAs whose outputs go where a fixed map takes CLIP's text of their concept, with noise; each layer has its own map."""
    folder, names, clip = tmp_path_factory.mktemp("zoo"), imagenet_names(), TextEncoder.load(CLIP, ("a photo of a {}",))
    classes = {split: [f"n{number:08}" for number in CONCEPTS.get(split, CONCEPTS["train"])] for split in MODELS}
    texts = {split: clip.encode([names[number] for number in some]) for split, some in classes.items()}
    torch.manual_seed(0)
    maps, number = {name: torch.randn(out, texts["train"].shape[1]) for name, (out, _) in LAYERS.items()}, 0
    for split, models in MODELS.items():
        for text, concept in zip(texts[split] - texts["train"].mean(0), classes[split], strict=True):
            for _ in range(models):
                tensors = {}
                for name, (out, width) in LAYERS.items():
                    told = torch.nn.functional.normalize(maps[name] @ text, dim=0)
                    tensors[f"{name}.lora.up.weight"] = torch.stack(
                        [told + torch.randn(out) / 50, torch.randn(out) / 50], 1
                    )
                    tensors[f"{name}.lora.down.weight"] = torch.eye(2, width) + torch.randn(2, width) / 50
                place = folder / split / f"model_idx_{number:04d}"
                place.mkdir(parents=True)
                save_file(tensors, place / "pytorch_lora_weights.safetensors", {"imagenet_class_id": concept})
                number += 1
    return folder


@pytest.fixture
def small_nets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The published recipes with fewer probes, as nets of true size take seconds to make; one thread, as many wait for one another on a busy machine."""
    for name in ("probex", "mvprobe"):
        config = getattr(encoders, name)(LAYER)
        small = replace(config, model=replace(config.model, probes=16, projection=16))
        monkeypatch.setattr(encoders, name, lambda layer, small=small: small)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_published_recipes_are_those_of_the_official_codes() -> None:
    for config, epochs, rate, views in (
        (encoders.probex(LAYER), 200, 2e-3, 1),
        (encoders.mvprobe(LAYER), 400, 3e-4, 4),
    ):
        assert isinstance(config.model, ProbeConfig)
        assert (config.model.layers, len(config.model.views), config.model.standardise) == ((LAYER,), views, views > 1)
        assert (config.model.probes, config.model.projection, config.model.representation) == (128, 128, 512)
        training = config.training
        assert (training.epochs, training.lr, training.batch, training.check_every, training.temperature) == (
            epochs,
            rate,
            128,
            10,
            1.0,
        )
        assert (training.symmetric, training.label_smoothing, config.aim, config.against_background) == (
            False,
            0.0,
            Aim.CLIP_TEXTS,
            False,
        )


@pytest.mark.usefixtures("small_nets")
def test_the_protocol_reads_every_encoder_on_one_folder(
    zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "read.json"
    asked = [
        "protocol",
        str(zoo),
        "--text-encoder",
        CLIP,
        "--seeds",
        "0",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    assert main(asked) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads(out.read_text())
    assert document["candidates"] == {"heldout": 8, "all": 22, "seen": 14}
    assert document["same_prompt"] == [["Cardigan (n02113186)", "cardigan (n02963159)"]]
    assert (
        document["split"] | {"models_train": 28, "models_test_holdout": 15, "concepts_heldout": 5} == document["split"]
    )
    rows = {row["encoder"]: row for row in document["results"]}
    assert document["results"][0]["encoder"] == "dense linear, one layer"
    assert {name: row["layers"] for name, row in rows.items()} == {
        "dense linear, one layer": 1,
        "Loradex, one layer": 1,
        "Loradex, many layers": 2,
        "ProbeX as published": 1,
        "MVProbe as published": 1,
    }
    assert rows["ProbeX as published"]["epochs"] == {"seen": 1, "unseen": 1}
    for row in rows.values():
        found = row["metrics"]
        assert found["zero_shot_top1_heldout"]["chance"] == 1 / 8
        assert found["zero_shot_top1_all"]["chance"] == 1 / 22
        assert found["in_distribution_top1"]["chance"] == 1 / 14
        assert (
            found["zero_shot_top1_heldout"]["n"],
            found["nearest_model_top1"]["n"],
            found["in_distribution_nearest_model_top1"]["n"],
        ) == (15, 10, 14)
        assert {
            "text_to_model_recall_at_5",
            "text_to_model_map",
            "one_class_auroc",
            "in_distribution_one_class_auroc",
        } <= found.keys()
    for name in ("dense linear, one layer", "Loradex, one layer", "Loradex, many layers"):
        assert rows[name]["metrics"]["zero_shot_top1_heldout"]["value"] > 0.4
        assert rows[name]["metrics"]["in_distribution_nearest_model_top1"]["value"] > 0.8
    value = rows["Loradex, one layer"]["metrics"]["text_to_model_map"]["value"]
    assert document["summary"]["Loradex, one layer"]["text_to_model_map"] == {
        "mean": value,
        "deviation": 0.0,
        "seeds": 1,
    }

    kept = dict(document, results=document["results"][1:])  # a run that was stopped
    kept["results"][0]["metrics"]["text_to_model_map"]["value"] = 0.125
    out.write_text(json.dumps(kept))
    assert main(asked) == 0
    again = {row["encoder"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    assert again["Loradex, one layer"]["metrics"]["text_to_model_map"]["value"] == 0.125
    assert again["dense linear, one layer"] == document["results"][0]


def small_study() -> Study:
    torch.manual_seed(0)
    split = ["train"] * 30 + ["val"] * 4 + ["val_holdout"] * 6 + ["test_holdout"] * 6
    concept = torch.cat([torch.arange(30) % 6, torch.arange(4), 6 + torch.arange(6) % 2, 8 + torch.arange(6) % 3])
    labels = torch.nn.functional.normalize(torch.randn(11, 8), dim=-1)
    models = {"one": Factors(torch.randn(46, 2, 12).half(), torch.randn(46, 20, 2).half())}
    kinds = np.array(["train"] * 6 + ["validation"] * 2 + ["heldout"] * 3)
    targets = labels[concept]
    return Study(
        models,
        concept,
        np.array(split),
        tuple("abcdefghijk"),
        kinds,
        labels,
        labels,
        targets,
        anchors_of(targets, concept, labels),
    )


def test_the_dual_form_of_the_dense_map_is_the_dense_map(monkeypatch: pytest.MonkeyPatch) -> None:
    study = small_study()
    monkeypatch.setattr(encoders, "PENALTIES", (0.7,))
    found = DenseScorer.fit(study, "one").encode(study.models)
    rows = study.rows("train")
    expected = DenseLinear.fit(study.take(rows), study.targets[rows], "one", 0.7).encode(study.models)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


class Net(torch.nn.Module):
    """Says of each model what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.config = torch.nn.Parameter(torch.zeros(())), ProbeConfig(("one",))
        self.said = torch.empty(0)

    def encode(self, models: dict[str, Factors]) -> Tensor:
        return self.said[models["one"].down[:, 0, 0].long()]

    def encode_text(self, texts: Tensor) -> Tensor:
        return texts


def test_the_exam_keeps_the_last_of_the_best_nets_for_seen_and_for_unseen_concepts() -> None:
    study = small_study()
    study.models["one"].down[:, 0, 0] = torch.arange(46)
    right, wrong = torch.eye(11)[study.concept], torch.eye(11)[(study.concept + 1) % 11]
    exam = Exam(study, torch.eye(11), ("one",), ProbeTraining(epochs=25, check_every=10))
    net, scores, seen = Net(), [], study.rows("val")
    for look, good in enumerate((seen, study.rows("val_holdout"), torch.arange(46)), 1):
        net.said = wrong.clone()
        net.said[good] = right[good]
        net.weight.data.fill_(look)
        scores.append(exam(net))
    assert [round(score, 6) for score in scores] == [0.0, 1.0, 1.0]
    assert scores[2] > scores[1]
    assert exam.epochs == {"seen": 25, "unseen": 25}
    assert float(exam.kept["weight"]) == 3


def test_held_out_candidates_are_those_of_both_held_out_splits() -> None:
    study = small_study()
    study.models["one"].down[:, 0, 0] = torch.arange(46)
    exam = Exam(study, torch.eye(11), ("one",), ProbeTraining())
    net = Net()
    net.said = torch.eye(11)[study.concept]
    net.said[study.rows("val_holdout")] = torch.eye(11)[8]  # a concept of test_holdout draws them all
    assert exam(net) < 0.01


def test_what_the_protocol_cannot_use_is_said(zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["protocol", str(zoo), "--text-encoder", CLIP, "--layer", "no.such"]) == 1
    assert "expected layer no.such, found 2 others such as down_blocks" in capsys.readouterr().err
    leaky = tmp_path / "leaky"
    shutil.copytree(zoo, leaky)
    first = next(path for path in (leaky / "train").iterdir())
    shutil.copytree(first, leaky / "test_holdout" / "model_idx_9999")
    assert main(["protocol", str(leaky), "--text-encoder", CLIP]) == 1
    out, err = capsys.readouterr()
    assert "expected held-out concepts that no training model has" in err
    assert out == ""


@pytest.mark.usefixtures("small_nets")
def test_the_whole_way_in_one_command(
    zoo: Path, served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.folder = zoo
    out = tmp_path / "out"
    arguments = [
        "reproduce",
        "SD_200",
        "--out",
        str(out),
        "--endpoint",
        served.hub,
        "--text-encoder",
        CLIP,
        "--seeds",
        "1",
        "--epochs",
        "1",
    ]
    assert main(arguments) == 0
    said, noted = capsys.readouterr()
    document = json.loads(said)
    assert [(row["encoder"], row["seed"]) for row in document["results"]] == [
        ("dense linear, one layer", None),
        ("Loradex, one layer", None),
        ("ProbeX as published", 1),
        ("MVProbe as published", 1),
    ]
    assert document == json.loads((out / "protocol.json").read_text())
    assert noted.startswith("SD_200: 77 models fetched, 0 were there, read ")
