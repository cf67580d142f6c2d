"""Model-J from a hub on loopback: layers by range reads, faulty servers, and the papers' protocol on a few LoRAs."""

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
from loradex.retrieval.training.concept_dataset import ConceptDataset, sample_anchors
from loradex.retrieval.training.dataset import Aim
from loradex.retrieval.training.labelled_loras import find_labelled_loras, imagenet_names
from scripts.model_j import LAYER, REPOSITORIES, encoders
from scripts.model_j.__main__ import main
from scripts.model_j.encoders import DenseScorer
from scripts.model_j.fetch import FetchOptions, fetch
from scripts.model_j.published import Validator
from tests.hub import (
    SHA,
    Handler,
    Hub,
    compressed,
    cut_connection,
    save_lora,
    sd1_shapes,
    serve,
    too_many_bytes,
    without_ranges,
    wrong_range,
)

CLIP = f"local-dir:{MINIATURE / 'encoder' / 'clip'}"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with LoRAs in Model-J's layout beside cards and pictures: two in ``train``, one in three other splits."""
    hub = Hub(tmp_path / "hub", REPOSITORIES["SD_200"])
    for number, split in enumerate(("train", "train", "val", "test", "test_holdout")):
        place = hub.folder / split / f"model_idx_{number:04d}"
        save_lora(
            place / "pytorch_lora_weights.safetensors",
            sd1_shapes(),
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
    return FetchOptions("SD_200", out, layers, hub.url, **{"jobs": 2} | more)


def weights(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.safetensors"))


def test_fetched_layers_equal_the_full_files_for_two_percent_of_the_bytes(served: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = fetch(options(served, out, LAYER))
    names = [name for name in weights(served.folder) if "model_idx" in name]
    assert weights(out) == names
    assert (result.fetched, result.present, result.refused) == (5, 0, {})
    for name in names:
        full, part = LoraFile.open(served.folder / name), LoraFile.open(out / name)
        assert list(part.layers) == [LAYER]
        assert part.header.metadata == full.header.metadata
        assert part.header.tensors.keys() == {f"unet.{LAYER}.lora.{half}.weight" for half in ("down", "up")}
        expected, actual = full.updates([LAYER])[LAYER], part.updates([LAYER])[LAYER]
        assert torch.equal(actual.up, expected.up)
        assert torch.equal(actual.down, expected.down)
        with safe_open(out / name, "pt") as file:  # the official reader accepts it
            assert file.get_tensor(f"unet.{LAYER}.lora.up.weight").dtype == torch.float32
    assert result.total_bytes == sum((served.folder / name).stat().st_size for name in names)
    assert served.sent == result.received < 0.025 * result.total_bytes
    assert len(served.cdn_requests) <= 3 * len(names)
    assert served.cdn_tokens == set()  # tokens are not sent to the CDN
    assert [file.split for file in find_labelled_loras(out)] == ["train", "train", "val", "test", "test_holdout"]


def test_distant_layers_take_a_read_each_and_near_ones_share_it(served: Hub, tmp_path: Path) -> None:
    near, far = LAYER.replace("to_q", "to_v"), "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k"
    fetch(options(served, tmp_path / "out", LAYER, near, far, jobs=1))
    path, _ = served.cdn_requests[-1]
    ranges = [asked for name, asked in served.cdn_requests if name == path]
    assert len(ranges) == 3  # the header, as long as the last file's, then two ranges
    assert set(LoraFile.open(tmp_path / "out" / path.removeprefix("/cdn/")).layers) == {LAYER, near, far}


def test_stored_layers_are_kept_when_others_are_fetched(served: Hub, tmp_path: Path) -> None:
    out, other = tmp_path / "out", LAYER.replace("to_q", "to_k")
    fetch(options(served, out, LAYER))
    assert str(fetch(options(served, out, LAYER))) == "SD_200: 0 models fetched, 5 already there"
    assert fetch(options(served, out, other)).fetched == 5
    assert set(LoraFile.open(out / weights(out)[0]).layers) == {LAYER, other}


def test_full_files_are_the_same_bytes(served: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fetch(options(served, out, LAYER, limit=1))
    result = fetch(options(served, out, limit=1))
    assert weights(out) == [name for name in weights(served.folder) if "model_idx" in name and "0001" not in name]
    assert all((out / name).read_bytes() == (served.folder / name).read_bytes() for name in weights(out))
    assert result.received == result.total_bytes > 0
    assert fetch(options(served, out, limit=1)).present == 4


def test_a_truncated_response_is_requested_again(served: Hub, tmp_path: Path) -> None:
    served.fault = cut_connection(times=3, keep=500)
    result = fetch(options(served, tmp_path / "out", LAYER))
    assert result.fetched == 5
    assert result.received == served.sent + 3 * 500


def test_a_run_that_a_broken_server_stopped_continues(served: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def fault(path: str, handler: Handler) -> bool:
        if "0003" in path:
            handler.respond(503, b"")
        return "0003" in path

    served.fault = fault
    with pytest.raises(FetchError, match="test/model_idx_0003.*6 tries: status 503; run it again"):
        fetch(options(served, out, LAYER, jobs=1))
    stored = weights(out)
    assert 3 <= len(stored) < 5
    served.fault = None
    served.cdn_requests.clear()
    result = fetch(options(served, out, LAYER, jobs=1))
    assert (result.present, result.fetched) == (len(stored), 5 - len(stored))
    assert {path.removeprefix("/cdn/") for path, _ in served.cdn_requests} == set(weights(out)) - set(stored)
    assert not list(out.rglob("*.part"))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without_ranges, "ignores Range; fetch whole files"),
        (wrong_range, "expected Content-Range bytes 0-8/"),
        (too_many_bytes, "expected 9 bytes, found more"),
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
    status = main(["fetch", "SD_200", "--out", str(tmp_path / "out"), "--endpoint", served.url, "--layers", LAYER])
    out, err = capsys.readouterr()
    assert status == 3
    assert out.startswith("SD_200: 2 models fetched, 0 already there, 3 refused, read ")
    assert len(err.splitlines()) == 3
    for number, reason in (
        (0, f"found a length of {2**60}"),
        (2, "found 4 more: something was appended"),
        (3, "expected a known dtype"),
    ):
        assert any(f"model_idx_000{number}" in line and reason in line for line in err.splitlines())
    assert len(weights(tmp_path / "out")) == 2


def test_a_wrong_size_in_the_hubs_list_is_detected(served: Hub, tmp_path: Path) -> None:
    name = weights(served.folder)[-1]
    served.listed_sizes[name] = (served.folder / name).stat().st_size + 8
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
    served.extra_entries = [{"type": "file", "path": name, "oid": SHA, "size": 10}]
    with pytest.raises(FetchError, match="leads out of it"):
        fetch(options(served, tmp_path / "out", LAYER))
    assert not (tmp_path / "out").exists()


def test_a_missing_layer_stops_the_run_at_once(served: Hub, tmp_path: Path) -> None:
    with pytest.raises(
        FileUnsupported,
        match=r"pytorch_lora_weights.safetensors: expected layer no\.such, found 128 others, the first down_blocks",
    ):
        fetch(options(served, tmp_path / "out", "no.such"))


def test_a_missing_repository_is_reported_in_one_line(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served, "folder", tmp_path / "nothing")
    assert main(["fetch", "SD_200", "--out", str(tmp_path / "out"), "--endpoint", served.url]) == 1
    assert "expected weights as <split>/model_idx_NNNN" in capsys.readouterr().err
    assert main(["fetch", "SD_1k", "--out", str(tmp_path / "out"), "--endpoint", served.url]) == 1
    out, err = capsys.readouterr()
    assert "expected a repository of models, found none that may be read" in err
    assert len(err.splitlines()) == 1
    assert out == ""


CLASS_NUMBERS = {  # numbers of ImageNet classes by split; the first two have the same prompt
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
MODELS_PER_CONCEPT = {"train": 2, "val": 1, "test": 1, "val_holdout": 2, "test_holdout": 3}
LAYERS = {f"unet.{LAYER}": (40, 24), f"unet.{LAYER.replace('to_q', 'to_v')}": (32, 24)}


@pytest.fixture(scope="module")
def lora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRAs whose outputs are a linear map of CLIP's text of their concept, with noise; each layer has its own map."""
    folder, names, clip = tmp_path_factory.mktemp("zoo"), imagenet_names(), TextEncoder.load(CLIP, ("a photo of a {}",))
    classes = {
        split: [f"n{number:08}" for number in CLASS_NUMBERS.get(split, CLASS_NUMBERS["train"])]
        for split in MODELS_PER_CONCEPT
    }
    texts = {split: clip.encode([names[number] for number in class_ids]) for split, class_ids in classes.items()}
    torch.manual_seed(0)
    maps, number = {name: torch.randn(out, texts["train"].shape[1]) for name, (out, _) in LAYERS.items()}, 0
    for split, models in MODELS_PER_CONCEPT.items():
        for text, concept in zip(texts[split] - texts["train"].mean(0), classes[split], strict=True):
            for _ in range(models):
                tensors = {}
                for name, (out, width) in LAYERS.items():
                    direction = torch.nn.functional.normalize(maps[name] @ text, dim=0)
                    tensors[f"{name}.lora.up.weight"] = torch.stack(
                        [direction + torch.randn(out) / 50, torch.randn(out) / 50], 1
                    )
                    tensors[f"{name}.lora.down.weight"] = torch.eye(2, width) + torch.randn(2, width) / 50
                place = folder / split / f"model_idx_{number:04d}"
                place.mkdir(parents=True)
                save_file(tensors, place / "pytorch_lora_weights.safetensors", {"imagenet_class_id": concept})
                number += 1
    return folder


@pytest.fixture
def small_nets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The published recipes with fewer probes, on one thread.

    Nets of true size take seconds to make, and threads wait for one another on a busy machine.
    """
    for name in ("probex_config", "mvprobe_config"):
        config = getattr(encoders, name)(LAYER)
        small = replace(config, model=replace(config.model, probes=16, projection=16))
        monkeypatch.setattr(encoders, name, lambda layer, small=small: small)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_published_recipes_are_those_of_the_official_codes() -> None:
    for config, epochs, rate, views in (
        (encoders.probex_config(LAYER), 200, 2e-3, 1),
        (encoders.mvprobe_config(LAYER), 400, 3e-4, 4),
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
def test_the_protocol_measures_every_encoder_on_one_folder(
    lora_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "read.json"
    arguments = [
        "protocol",
        str(lora_folder),
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
    assert main(arguments) == 0
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
        metrics = row["metrics"]
        assert metrics["zero_shot_top1_heldout"]["chance"] == 1 / 8
        assert metrics["zero_shot_top1_all"]["chance"] == 1 / 22
        assert metrics["in_distribution_top1"]["chance"] == 1 / 14
        assert (
            metrics["zero_shot_top1_heldout"]["n"],
            metrics["nearest_model_top1"]["n"],
            metrics["in_distribution_nearest_model_top1"]["n"],
        ) == (15, 10, 14)
        assert {
            "text_to_model_recall_at_5",
            "text_to_model_map",
            "one_class_auroc",
            "in_distribution_one_class_auroc",
        } <= metrics.keys()
    for name in ("dense linear, one layer", "Loradex, one layer", "Loradex, many layers"):
        assert rows[name]["metrics"]["zero_shot_top1_heldout"]["value"] > 0.4
        assert rows[name]["metrics"]["in_distribution_nearest_model_top1"]["value"] > 0.8
    value = rows["Loradex, one layer"]["metrics"]["text_to_model_map"]["value"]
    assert document["summary"]["Loradex, one layer"]["text_to_model_map"] == {
        "mean": value,
        "deviation": 0.0,
        "seeds": 1,
    }

    partial = dict(document, results=document["results"][1:])  # as of a run that was stopped
    partial["results"][0]["metrics"]["text_to_model_map"]["value"] = 0.125
    out.write_text(json.dumps(partial))
    assert main(arguments) == 0
    again = {row["encoder"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    assert again["Loradex, one layer"]["metrics"]["text_to_model_map"]["value"] == 0.125
    assert again["dense linear, one layer"] == document["results"][0]


def small_dataset() -> ConceptDataset:
    torch.manual_seed(0)
    split = ["train"] * 30 + ["val"] * 4 + ["val_holdout"] * 6 + ["test_holdout"] * 6
    concept = torch.cat([torch.arange(30) % 6, torch.arange(4), 6 + torch.arange(6) % 2, 8 + torch.arange(6) % 3])
    labels = torch.nn.functional.normalize(torch.randn(11, 8), dim=-1)
    models = {"one": Factors(torch.randn(46, 2, 12).half(), torch.randn(46, 20, 2).half())}
    concept_split = np.array(["train"] * 6 + ["validation"] * 2 + ["heldout"] * 3)
    targets = labels[concept]
    return ConceptDataset(
        models,
        concept,
        np.array(split),
        tuple("abcdefghijk"),
        concept_split,
        labels,
        labels,
        targets,
        sample_anchors(targets, concept, labels),
    )


def test_the_dual_form_of_the_dense_map_is_the_dense_map(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = small_dataset()
    monkeypatch.setattr(encoders, "PENALTIES", (0.7,))
    actual = DenseScorer.fit(dataset, "one").encode(dataset.models)
    rows = dataset.rows("train")
    expected = DenseLinear.fit(dataset.take(rows), dataset.targets[rows], "one", 0.7).encode(dataset.models)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


class Net(torch.nn.Module):
    """Scores each model by the row of ``answers`` with its number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.config = torch.nn.Parameter(torch.zeros(())), ProbeConfig(("one",))
        self.answers = torch.empty(0)

    def encode(self, models: dict[str, Factors]) -> Tensor:
        return self.answers[models["one"].down[:, 0, 0].long()]

    def encode_text(self, texts: Tensor) -> Tensor:
        return texts


def test_the_validator_keeps_the_last_of_the_best_nets_for_seen_and_for_unseen_concepts() -> None:
    dataset = small_dataset()
    dataset.models["one"].down[:, 0, 0] = torch.arange(46)
    right, wrong = torch.eye(11)[dataset.concept], torch.eye(11)[(dataset.concept + 1) % 11]
    validator = Validator(dataset, torch.eye(11), ("one",), ProbeTraining(epochs=25, check_every=10))
    net, scores, seen = Net(), [], dataset.rows("val")
    for check, correct in enumerate((seen, dataset.rows("val_holdout"), torch.arange(46)), 1):
        net.answers = wrong.clone()
        net.answers[correct] = right[correct]
        net.weight.data.fill_(check)
        scores.append(validator(net))
    assert [round(score, 6) for score in scores] == [0.0, 1.0, 1.0]
    assert scores[2] > scores[1]
    assert validator.epochs == {"seen": 25, "unseen": 25}
    assert float(validator.best_state["weight"]) == 3


def test_held_out_candidates_are_those_of_both_held_out_splits() -> None:
    dataset = small_dataset()
    dataset.models["one"].down[:, 0, 0] = torch.arange(46)
    validator = Validator(dataset, torch.eye(11), ("one",), ProbeTraining())
    net = Net()
    net.answers = torch.eye(11)[dataset.concept]
    net.answers[dataset.rows("val_holdout")] = torch.eye(11)[8]  # all predicted as a concept of test_holdout
    assert validator(net) < 0.01


def test_the_protocol_reports_what_it_cannot_use(
    lora_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["protocol", str(lora_folder), "--text-encoder", CLIP, "--layer", "no.such"]) == 1
    assert "expected layer no.such, found 2 others such as down_blocks" in capsys.readouterr().err
    overlapping = tmp_path / "leaky"
    shutil.copytree(lora_folder, overlapping)
    first = next(path for path in (overlapping / "train").iterdir())
    shutil.copytree(first, overlapping / "test_holdout" / "model_idx_9999")
    assert main(["protocol", str(overlapping), "--text-encoder", CLIP]) == 1
    out, err = capsys.readouterr()
    assert "expected held-out concepts that no training model has" in err
    assert out == ""


@pytest.mark.usefixtures("small_nets")
def test_reproduce_fetches_and_measures_in_one_command(
    lora_folder: Path, served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    served.folder = lora_folder
    out = tmp_path / "out"
    arguments = [
        "reproduce",
        "SD_200",
        "--out",
        str(out),
        "--endpoint",
        served.url,
        "--text-encoder",
        CLIP,
        "--seeds",
        "1",
        "--epochs",
        "1",
    ]
    assert main(arguments) == 0
    stdout, stderr = capsys.readouterr()
    document = json.loads(stdout)
    assert [(row["encoder"], row["seed"]) for row in document["results"]] == [
        ("dense linear, one layer", None),
        ("Loradex, one layer", None),
        ("ProbeX as published", 1),
        ("MVProbe as published", 1),
    ]
    assert document == json.loads((out / "protocol.json").read_text())
    assert stderr.startswith("SD_200: 77 models fetched, 0 already there, read ")
