"""The file that travels: the same bytes and id for the same expert, and every forgery, damage and excess refused."""

import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from loradex.app.sharing.checkpoint import content_digest, expert_id
from loradex.app.sharing.shared_expert import FORMAT, SharedExpert
from loradex.retrieval.errors import CheckpointError, FileCorrupt, FileError, FileMissing, FileUnsafe, LoradexError
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.probes import ProbeConfig, ProbeNet
from loradex.retrieval.probex.serialization import model_to_checkpoint
from tests.app.sharing.small_experts import METRICS, forged, header_length, of_other_space, small_expert, whole

FLIPS = 150


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("shared") / "b.safetensors"
    small_expert().write(path)
    return path.read_bytes()


def refusal(path: Path) -> str:
    with pytest.raises(LoradexError) as caught:
        SharedExpert.read(path)
    message = str(caught.value)
    assert message.isprintable() and str(path) in message and len(message) < 1000
    return message


def test_what_is_read_is_what_was_written_and_equal_experts_are_equal_bytes(tmp_path: Path, raw: bytes) -> None:
    for number in range(3):  # safetensors itself orders metadata anew each time
        small_expert().write(tmp_path / f"{number}.safetensors")
        assert (tmp_path / f"{number}.safetensors").read_bytes() == raw
    read, made = SharedExpert.read(tmp_path / "0.safetensors"), small_expert()
    assert read.id == made.id and len(read.id) == 20
    assert (read.tree, read.family, read.space_name) == ("shared-b", "mini-b", "clip-c97d6726bfa5")
    assert read.expert.settings == made.expert.settings and read.space.settings == made.space.settings
    for name, tensor in made.expert.tensors.items():
        assert read.expert.tensors[name].dtype == tensor.dtype and torch.equal(read.expert.tensors[name], tensor)
    assert read.metrics is not None and read.metrics.metrics == METRICS.metrics
    assert read.metrics.measured_by == "claimed"


def test_an_id_follows_settings_and_tensors_but_neither_place_nor_figures(tmp_path: Path) -> None:
    expert = small_expert().expert
    id = expert_id(expert)
    assert id == expert_id(small_expert(base="/home/somebody/base.safetensors").expert)
    assert id != expert_id(small_expert(tree="other").expert)
    assert id != expert_id(small_expert(temperature=expert.settings["temperature"] * 1.000001).expert)
    tensors = {name: tensor.clone() for name, tensor in expert.tensors.items()}
    tensors["basis"].view(torch.int16)[0, 0] ^= 1
    assert id != expert_id(type(expert)(expert.settings, tensors))
    assert content_digest(("ab", "c"), {}) != content_digest(("a", "bc"), {})


def test_any_flipped_bit_and_any_cut_is_refused(tmp_path: Path, raw: bytes) -> None:
    path, numbers, header = tmp_path / "flipped.safetensors", random.Random(0), header_length(raw)  # noqa: S311
    places = [numbers.randrange(8, header) for _ in range(FLIPS)] + [numbers.randrange(len(raw)) for _ in range(FLIPS)]
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1 << numbers.randrange(8)
        path.write_bytes(changed)
        refusal(path)
    for length in (0, 7, 8, 9, header - 1, header, header + 1, len(raw) - 1):
        path.write_bytes(raw[:length])
        refusal(path)
    path.write_bytes(raw + b"\0")
    assert "found 1 more: something was appended" in refusal(path)
    path.write_bytes(raw)
    SharedExpert.read(path)


def test_a_changed_tensor_or_setting_is_named_as_a_change(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "changed.safetensors"
    path.write_bytes(raw[:-2] + bytes([raw[-2] ^ 1]) + raw[-1:])
    assert "expected content of SHA-256" in refusal(path) and "damaged or changed" in refusal(path)
    path.write_bytes(raw.replace(b"0.75", b"0.95"))
    assert "expected content of SHA-256" in refusal(path)
    assert "expected the expert 'made up'" in refusal(forged(path, lambda settings: settings.update(id="made up")))


Change = Callable[[dict[str, Any]], None]


def expert(**changes: Any) -> Change:
    return lambda settings: settings["expert"].update(changes)


def sketch(**changes: Any) -> Change:
    return lambda settings: settings["expert"]["sketch"].update(changes)


def layer_named(name: str) -> Change:
    def change(settings: dict[str, Any]) -> None:
        settings["expert"]["shapes"][name] = [64, 64]

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (expert(tree="../x"), "a model tree named '../x'"),
        (expert(tree=".hidden"), "cannot be a file's name"),
        (expert(tree="a/b"), "cannot be a file's name"),
        (expert(tree="a\x1b[31m"), "cannot be a file's name"),
        (expert(tree="x" * 200), "cannot be a file's name"),
        (expert(tree=7), "cannot be a file's name"),
        (expert(family="sd99"), "family 'sd99', which this Loradex does not know"),
        (expert(base="../../etc/passwd"), "the path of a base model"),
        (expert(space="clip\n"), "no name of a space"),
        (expert(space="clip-256-0123"), "an expert of space clip-256-0123 with the space clip-"),
        (expert(temperature=0), "a temperature of 0"),
        (expert(temperature="1"), "a temperature of '1'"),
        (expert(unknown=10**400), "int too large"),
        (expert(shapes={}), "no list of 1 to 5000 layers"),
        (expert(shapes={str(n): [1, 1] for n in range(5001)}), "no list of 1 to 5000 layers"),
        (layer_named("a\x00b"), "a layer named 'a\\\\x00b'"),
        (layer_named("x"), "no 'x.familiar'"),
        (sketch(layers=["x", "x"]), "layers ['x', 'x']"),
        (sketch(ridge=[1]), "a setting of the sketch that is no number"),
        (sketch(surprise=1), "unexpected keyword argument"),
        (expert(provenance={"made": "found"}), "a provenance"),
        (lambda settings: settings["expert"].pop("unknown"), "no 'unknown'"),
        (lambda settings: settings.pop("space"), "space"),
        (lambda settings: settings["space"].update(text_encoder="local-dir:/etc"), "a text encoder at a path"),
        (lambda settings: settings["space"].update(text_encoder="../clip"), "a text encoder at a path"),
        (lambda settings: settings["space"].update(templates=["{}\x07"]), "texts of a space with control characters"),
        (lambda settings: settings.update(expert=[]), "no settings of the expert"),
        (lambda settings: settings.update(labels={"names": ["a"]}), "no 'vectors'"),
        (lambda settings: settings.update(metrics={"on": "x", "metrics": {"a": {"value": 1.0}}}), "no value and n"),
        (lambda settings: settings.update(metrics={"on": "x", "metrics": {"a": {"value": float("nan"), "n": 1}}}), "value"),
        (lambda settings: settings.update(expert_format="loradex-expert-9"), "an expert of format"),
    ],
)  # fmt: skip
def test_forged_settings_are_refused(tmp_path: Path, change: Change, found: str) -> None:
    assert found in refusal(forged(tmp_path / "forged.safetensors", change))


def tensor(name: str, make: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], None]:
    def change(tensors: dict[str, Tensor]) -> None:
        full = next(each for each in tensors if each.endswith(name))
        tensors[full] = make(tensors[full].clone())

    return change


def with_value(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[-1] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (tensor("basis", with_value(float("nan"))), "numbers that are not finite in tensor expert.basis"),
        (tensor("space.centre", with_value(float("inf"))), "numbers that are not finite in tensor space.centre"),
        (tensor("basis", lambda t: t.double()), "expected tensors of F16 or F32, found F64 in 'expert.basis'"),
        (tensor("basis", lambda t: t.long()), "found I64"),
        (tensor("basis", lambda t: t[:, :-1]), "tensor basis of shape (40, 255) where (40, 256) fits"),
        (tensor(".left", lambda t: torch.zeros(2000, 1, dtype=torch.half)), "2000 output and"),
        (tensor(".weight", lambda t: t[:1]), "where (392, 40) fits"),
        (tensor("background.mean", lambda t: t[None]), "too many values to unpack"),
        (tensor("background.mean", lambda t: torch.zeros(0)), "background.covariance of shape"),
        (tensor("space.centre", lambda t: torch.zeros(())), "not enough values to unpack"),
        (lambda tensors: tensors.pop("expert.basis"), "no 'basis'"),
        (lambda tensors: tensors.pop("space.centre"), "no 'centre'"),
    ],
)  # fmt: skip
def test_forged_tensors_are_refused(tmp_path: Path, change: Callable[[dict[str, Tensor]], None], found: str) -> None:
    assert found in refusal(forged(tmp_path / "forged.safetensors", change_tensors=change))


def test_probes_of_a_size_that_the_file_does_not_have_take_no_memory(tmp_path: Path) -> None:
    layer = next(iter(whole().settings["shapes"]))
    probes = {"layers": [layer], "views": ["xu"], "probes": 8192, "projection": 8192}

    def change(settings: dict[str, Any]) -> None:
        del settings["expert"]["sketch"]
        settings["expert"]["probes"] = probes

    assert "no 'net." in refusal(forged(tmp_path / "forged.safetensors", change))
    probes["probes"] = 10**9
    assert "probes of sizes (1000000000" in refusal(forged(tmp_path / "forged.safetensors", change))


def write_header(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def test_headers_that_are_bombs_or_hold_things_twice(tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    for length in (2**31, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", length) + b"{}")
        assert "expected a header of at most 100 MB" in refusal(path)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    metadata = {"format": FORMAT, "settings": "{}", "sha256": ""}
    many = {f"t{number}": empty for number in range(20_001)}
    assert "tensors, found more" in refusal(write_header(path, json.dumps({"__metadata__": metadata, **many}).encode()))
    huge = {"t": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    assert "found" in refusal(write_header(path, json.dumps({"__metadata__": metadata, **huge}).encode()))
    twice = json.dumps({"__metadata__": metadata}).encode()[:-1] + b',"a":%s,"a":%s}' % (
        (json.dumps(empty).encode(),) * 2
    )
    assert "a key stands twice" in refusal(write_header(path, twice))
    deep = json.dumps({"__metadata__": metadata | {"settings": "[" * 100_000}}).encode()
    assert "expected" in refusal(write_header(path, deep))
    text = "[" * 100_000
    nested = metadata | {"settings": text, "sha256": content_digest((FORMAT, text), {})}
    assert "expected settings and tensors" in refusal(write_header(path, json.dumps({"__metadata__": nested}).encode()))
    long = metadata | {"settings": " " * (8 * 2**20 + 1)}
    assert "settings of at most" in refusal(write_header(path, json.dumps({"__metadata__": long}).encode()))
    more = metadata | {"surprise": "x"}
    assert "expected settings and sha256 in the header" in refusal(
        write_header(path, json.dumps({"__metadata__": more}).encode())
    )


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "pickle.safetensors"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(FileUnsafe, match="could run code"):
        SharedExpert.read(path)
    with pytest.raises(FileMissing, match="a folder or a device"):
        SharedExpert.read(tmp_path)
    (tmp_path / "null").symlink_to(os.devnull)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name in ("null", "loop", "pipe", "nothing"):
        with pytest.raises(FileMissing):
            SharedExpert.read(tmp_path / name)
    small_expert().expert.save(path, "loradex-expert-2")
    with pytest.raises(
        CheckpointError, match="an expert without its space; `loradex expert export TREE FILE` writes one"
    ):
        SharedExpert.read(path)
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(FileCorrupt):
        SharedExpert.read(path)
    small_expert().write(path)
    (tmp_path / "link.safetensors").symlink_to(path)
    assert SharedExpert.read(tmp_path / "link.safetensors").id == small_expert().id
    assert issubclass(FileError, LoradexError)


def test_learned_probes_travel_too(tmp_path: Path) -> None:
    layer = next(iter(whole().settings["shapes"]))
    shape = whole().settings["shapes"][layer]
    torch.manual_seed(0)
    config = ProbeConfig((layer,), probes=4, projection=3, representation=256, text_projection=False)
    settings, tensors = model_to_checkpoint(ProbeNet({layer: tuple(shape)}, 256, config))
    shared = small_expert(layers=1)
    others = {
        name: each
        for name, each in shared.expert.tensors.items()
        if name.startswith(("background", f"{layer}.familiar"))
    }
    kept = {name: value for name, value in shared.expert.settings.items() if name not in ("sketch", "alignment")}
    probes = SharedExpert(type(shared.expert)({**kept, **settings}, others | tensors), shared.space)
    probes.write(tmp_path / "probes.safetensors")
    read = SharedExpert.read(tmp_path / "probes.safetensors")
    assert read.id == probes.id and Expert.from_checkpoint(read.expert.settings, read.expert.tensors).layers == (layer,)


def test_an_expert_of_another_clip_keeps_its_space(tmp_path: Path) -> None:
    of_other_space().write(tmp_path / "other.safetensors")
    read = SharedExpert.read(tmp_path / "other.safetensors")
    assert read.space_name == "clip-256-abababababab" and read.text_encoder == "ViT-B-32-quickgelu/openai"
