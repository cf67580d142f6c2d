"""LoRAs of a hub on loopback: vectors of whole files from a part of their bytes, and faulty servers and files."""

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import (
    FetchError,
    FileCorrupt,
    FileError,
    FileMissing,
    FileUnsafe,
    FileUnsupported,
    LoradexError,
)
from loradex.retrieval.lora import LoraFile
from loradex.retrieval.lora.layer_names.counted_modules import unet_modules
from loradex.retrieval.remote import HubFile, header
from loradex.retrieval.router import Router
from tests.hub import (
    SHA,
    Handler,
    Hub,
    compressed,
    cut_connection,
    save_lora,
    sd1_shapes,
    too_many_bytes,
    without_ranges,
    wrong_range,
)
from tests.retrieval.remote.hub_loras import (
    NAME,
    SHIPPED,
    assert_one_line,
    assert_same_as_local,
    open_repository,
    read_model,
)
from tests.retrieval.test_router import SPACE, expert_of, updates


def test_vectors_are_those_of_the_whole_files_also_from_threads(hub: Hub, encoder: Encoder) -> None:
    repository = open_repository(hub)
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda file: repository.read(file, encoder), 4 * repository.files))
    for model, path in zip(models, 4 * SHIPPED, strict=True):
        assert_same_as_local(model, path, encoder)
        assert model.received == path.stat().st_size  # the experts of the miniature read all layers of its LoRAs
    assert {model.family for model in models} == {"mini-a", "mini-b"}
    assert len(hub.cdn_requests) == 3 * len(models)  # for the prefix of the header, the header, and the layers
    assert hub.cdn_tokens == set()  # tokens are sent to the hub only


def save_larger_lora(path: Path, target: Path) -> None:
    """Save a LoRA with feed-forward layers and a text encoder besides, as most trainers do, of four times the rank."""
    tensors = load_file(path)
    shapes = LoraFile.open(path).shapes
    for layer, (width, _) in shapes.items():
        if layer.endswith("attn1.to_q"):
            block = f"unet.{layer.removesuffix('.attn1.to_q')}"
            for name, out, inner in (
                (f"{block}.ff.net.0.proj", 8 * width, width),
                (f"{block}.ff.net.2", width, 4 * width),
            ):
                tensors |= {
                    f"{name}.lora.down.weight": torch.randn(8, inner).half(),
                    f"{name}.lora.up.weight": torch.randn(out, 8).half(),
                }
    for number in range(6):
        name = f"text_encoder.text_model.encoder.layers.{number}.self_attn.q_proj"
        tensors |= {
            f"{name}.lora.down.weight": torch.randn(8, 128).half(),
            f"{name}.lora.up.weight": torch.randn(128, 8).half(),
        }
    save_file(tensors, target, {"modelspec.title": "An icon", "class_name": "icon"})


def test_only_the_layers_of_the_expert_are_read(hub: Hub, encoder: Encoder) -> None:
    target = hub.folder / "large.safetensors"
    save_larger_lora(SHIPPED[0], target)
    model = read_model(hub, encoder, target.name)
    assert_same_as_local(model, target, encoder)
    assert model.facts.title == "An icon"
    local = LoraFile.open(target)
    infos = [
        local.header.tensors[name]
        for layer in encoder.experts["mini-a"].layers
        for name in local.layers[layer].update_parts.values()
    ]
    assert model.received == local.header.data_start + sum(info.end - info.start for info in infos) == hub.sent
    assert model.received < 0.3 * target.stat().st_size  # the header is a fifth of it


@pytest.mark.parametrize("positional", [False, True])
def test_a_small_expert_reads_less_than_a_hundredth_of_a_file(hub: Hub, positional: bool) -> None:
    """Two experts read the same two of 128 layers, by their names or by cloneofsimo's positions."""
    encoder = Encoder(hub.folder, SPACE, {}, Router({f"tree-{tree}": expert_of(tree) for tree in (1, 2)}, {}))
    target = hub.folder / "sd1.safetensors"
    save_lora(target, sd1_shapes(), 16, seed=0)
    tensors = load_file(target)
    for layer, factors in updates(2, 1, seed=7).items():
        tensors |= {
            f"unet.{layer}.lora.down.weight": factors.down[0].contiguous(),
            f"unet.{layer}.lora.up.weight": factors.up[0].contiguous(),
        }
    if positional:
        tensors = {
            f"unet:{i}:{half}": tensors[f"{module.path}.lora.{half}.weight"]
            for i, module in enumerate(unet_modules(("attn1", "attn2")))
            for half in ("down", "up")
        }
    save_file(tensors, target)
    model = read_model(hub, encoder, target.name)
    assert_same_as_local(model, target, encoder)
    assert (model.family, len(model.layers)) == ("sd1", 128)
    assert model.received == hub.sent < 0.01 * target.stat().st_size


def test_only_the_header_is_read_if_no_expert_reads_the_family(hub: Hub, encoder: Encoder) -> None:
    target = hub.folder / "xl.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{layer}.lora.down.weight": torch.randn(4, 2048), f"{layer}.lora.up.weight": torch.randn(1280, 4)}
    save_file(tensors, target, {"ss_output_name": "my_style", "class_name": "style"})
    model = read_model(hub, encoder, target.name)
    assert (model.family, model.vector, model.facts.title, model.metadata["class_name"]) == (
        "sdxl",
        None,
        "my_style",
        "style",
    )
    assert model.received == hub.sent == LoraFile.open(target).header.data_start


@pytest.fixture
def peft(hub: Hub) -> Path:
    """One of the LoRAs as PEFT saves it, with its config beside it."""
    target = hub.folder / "peft" / "adapter_model.safetensors"
    target.parent.mkdir()
    tensors = {
        name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B."): tensor
        for name, tensor in load_file(SHIPPED[0]).items()
    }
    save_file(tensors, target)
    target.with_name("adapter_config.json").write_text(
        json.dumps({"lora_alpha": 4, "r": 2, "alpha_pattern": {"attn2.to_v": 40}})
    )
    return target


@pytest.mark.parametrize(
    "fault", [None, lambda path, handler: path.endswith(".json") and without_ranges(path, handler)]
)
def test_scales_come_from_the_peft_config_beside_the_file(
    hub: Hub, encoder: Encoder, peft: Path, fault: Callable[[str, Handler], bool] | None
) -> None:
    hub.fault = fault
    repository = open_repository(hub)
    file = next(file for file in repository.files if file.name == "peft/adapter_model.safetensors")
    model = repository.read(file, encoder)
    assert_same_as_local(model, peft, encoder)
    assert model.received == peft.stat().st_size + peft.with_name("adapter_config.json").stat().st_size
    remote, local = LoraFile.from_header(repository.header(file)), LoraFile.open(peft)
    assert remote.scales == local.scales == [2.0, 20.0]
    assert all(torch.equal(update.up, local.updates([layer])[layer].up) for layer, update in remote.iter_updates())


def test_an_invalid_peft_config_is_refused(hub: Hub, encoder: Encoder, peft: Path) -> None:
    peft.with_name("adapter_config.json").write_text("{nope")
    with pytest.raises(
        FileCorrupt, match=f"hf://{NAME}@{SHA}/peft/adapter_model.safetensors: .* mend adapter_config.json"
    ):
        read_model(hub, encoder, "peft/adapter_model.safetensors")


def test_the_id_is_made_of_the_hubs_hash_or_else_of_the_address(hub: Hub, encoder: Encoder) -> None:
    hub.listed_sha256 = {"icons/0.safetensors": "ab" * 32, "icons/1.safetensors": "not a hash"}
    first, second, third = open_repository(hub).files
    assert (first.sha256, second.sha256, third.sha256) == ("ab" * 32, None, None)
    assert (
        first.id
        == HubFile("elsewhere", 1, "hf://a/b@c/elsewhere", "ab" * 32).id
        == hashlib.sha256(b"hub file " + b"ab" * 32).hexdigest()[:20]
    )
    assert second.id == hashlib.sha256(f"hub file hf://{NAME}@{SHA}/icons/1.safetensors".encode()).hexdigest()[:20]
    assert len({first.id, second.id, third.id}) == 3
    assert read_model(hub, encoder, "icons/0.safetensors").id == first.id


def test_a_cut_response_is_requested_again(hub: Hub, encoder: Encoder) -> None:
    hub.fault = cut_connection(times=2, keep=500)
    model = read_model(hub, encoder, "icons/0.safetensors")
    assert_same_as_local(model, SHIPPED[0], encoder)
    assert model.received == SHIPPED[0].stat().st_size + 2 * 500


def test_bad_files_are_named_and_the_others_read(hub: Hub, encoder: Encoder) -> None:
    raw = SHIPPED[0].read_bytes()
    start = LoraFile.open(SHIPPED[0]).header.data_start
    broken = bytearray(raw)
    broken[start : start + 2] = b"\xff\xff"  # NaN
    bad: dict[str, tuple[bytes, type[LoradexError], str]] = {
        "pickle": (b"\x80\x02}q\x00." * 50, FileUnsafe, "found a pickle"),
        "zip": (b"PK\x03\x04" * 50, FileUnsafe, "found a zip archive"),
        "short": (raw[:-10], FileCorrupt, "the download is cut short"),
        "head": (raw[:100], FileCorrupt, "found 92 (1%): the download is cut short"),
        "long": (raw + b"more", FileCorrupt, "something was appended"),
        "empty": (b"", FileCorrupt, "found an empty file"),
        "tiny": (b"tiny", FileCorrupt, "found plain text"),
        "nan": (bytes(broken), FileCorrupt, "expected finite weights"),
    }
    for name, (content, _, _) in bad.items():
        (hub.folder / f"{name}.safetensors").write_bytes(content)
    save_file({"weight": torch.ones(3)}, hub.folder / "other.safetensors")
    bad["other"] = b"", FileUnsupported, "expected LoRA factors"
    repository = open_repository(hub)
    with ThreadPoolExecutor(4) as pool:
        futures = {file.name: pool.submit(repository.read, file, encoder) for file in repository.files}
    for name, (_, kind, reason) in bad.items():
        error = futures[f"{name}.safetensors"].exception()
        assert isinstance(error, FileError)
        assert type(error) is kind
        assert_one_line(error, f"hf://{NAME}@{SHA}/{name}.safetensors: ", reason)
    for number, path in enumerate(SHIPPED):
        assert_same_as_local(futures[f"icons/{number}.safetensors"].result(), path, encoder)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (without_ranges, "ignores Range"),
        (wrong_range, "expected Content-Range bytes 0-8/"),
        (too_many_bytes, "expected 9 bytes, found more"),
        (compressed, "found 'gzip'"),
    ],
)
def test_wrong_responses_are_refused(
    hub: Hub, encoder: Encoder, fault: Callable[[str, Handler], bool], reason: str
) -> None:
    hub.fault = fault
    with pytest.raises(FetchError) as caught:
        read_model(hub, encoder, "icons/0.safetensors")
    assert_one_line(caught.value, f"hf://{NAME}@{SHA}/icons/0.safetensors: ", reason)


def test_a_wrongly_listed_size_is_noticed(hub: Hub, encoder: Encoder) -> None:
    hub.listed_sizes["icons/0.safetensors"] = SHIPPED[0].stat().st_size - 8
    with pytest.raises(FetchError, match="expected Content-Range"):
        read_model(hub, encoder, "icons/0.safetensors")


def test_reads_are_bounded_one_by_one_and_in_all(hub: Hub, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_READ_BYTES", 10_000)
    assert_same_as_local(read_model(hub, encoder, "icons/0.safetensors"), SHIPPED[0], encoder)
    lengths = [
        int(last) + 1 - int(first)
        for _, requested in hub.cdn_requests[2:]
        for first, last in [requested.removeprefix("bytes=").split("-")]
    ]
    assert 5 < len(lengths) < 12
    assert max(lengths) <= 10_000
    monkeypatch.setattr(header, "MAX_DATA_BYTES", 10_000)
    with pytest.raises(FileUnsupported) as caught:
        read_model(hub, encoder, "icons/0.safetensors")
    assert_one_line(caught.value, "expected at most 10000 bytes to read")


def test_a_remote_header_never_reads_a_file_of_this_machine(hub: Hub) -> None:
    repository = open_repository(hub)
    lora = LoraFile.from_header(repository.header(repository.files[0]))
    with pytest.raises(FileMissing, match=f"hf://{NAME}@{SHA}/icons/0.safetensors: expected a file on this machine"):
        assert lora.sha256
    assert lora.data_hash == LoraFile.open(SHIPPED[0]).data_hash
