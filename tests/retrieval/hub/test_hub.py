"""LoRAs of a hub on loopback: the vectors of the whole files by a share of their bytes, pinned commits, and servers and files that lie."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loradex.app.paths import MINIATURE
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
from loradex.retrieval.lora.layer_names.cloneofsimo import unet_order
from loradex.retrieval.remote import HubFile, HubModel, HubRepository, header, listing, repository
from loradex.retrieval.router import Router
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
from tests.retrieval.test_router import SPACE, expert_of, updates

NAME = "someone/my-loras"
SHIPPED = sorted((MINIATURE / "models").glob("*/test_holdout/*/*.safetensors"))
SHIPPED = [SHIPPED[0], SHIPPED[1], SHIPPED[-1]]  # two of one tree, one of the other


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with three LoRAs of the miniature, beside a card."""
    made = Hub(tmp_path / "hub", NAME, ("main", "v1.0", "refs/pr/1"))
    for number, path in enumerate(SHIPPED):
        target = made.folder / f"icons/{number}.safetensors"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (made.folder / "README.md").write_text("card")
    with serve(made, monkeypatch):
        yield made


def opened(hub: Hub, place: str = f"hf://{NAME}") -> HubRepository:
    hub.asked.clear()
    return HubRepository.open(place)


def read(hub: Hub, encoder: Encoder, name: str) -> HubModel:
    found = opened(hub)
    return found.read(next(file for file in found.files if file.name == name), encoder)


def same_as_here(model: HubModel, path: Path, encoder: Encoder) -> None:
    """The hub's model is the one of the whole file on this machine."""
    lora = LoraFile.open(path)
    assert model.vector is not None
    torch.testing.assert_close(model.vector, encoder.encode_file(lora), rtol=0, atol=1e-6)
    assert (model.family, model.format, model.ranks, model.layers) == (
        lora.family,
        lora.format,
        lora.ranks,
        list(lora.layers),
    )
    assert (model.metadata, model.facts) == (lora.header.metadata, lora.facts)


def one_line(error: LoradexError, *parts: str) -> None:
    said = str(error)
    assert said.isprintable()
    assert len(said) < 500
    for part in ("expected", "found", *parts):
        assert part in said


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", "@refs/pr/1", f"@{SHA}"])
def test_a_revision_becomes_its_commit(hub: Hub, revision: str) -> None:
    found = opened(hub, f"hf://{NAME}{revision}")
    assert found.place == f"hf://{NAME}@{SHA}"
    assert [(file.name, file.size, file.path) for file in found.files] == [
        (f"icons/{number}.safetensors", path.stat().st_size, f"hf://{NAME}@{SHA}/icons/{number}.safetensors")
        for number, path in enumerate(SHIPPED)
    ]


def test_vectors_are_those_of_the_whole_files_also_from_threads(hub: Hub, encoder: Encoder) -> None:
    found = opened(hub)
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda file: found.read(file, encoder), 4 * found.files))
    for model, path in zip(models, 4 * SHIPPED, strict=True):
        same_as_here(model, path, encoder)
        assert model.received == path.stat().st_size  # the experts that ship read every layer of the LoRAs that ship
    assert {model.family for model in models} == {"mini-a", "mini-b"}
    assert len(hub.asked) == 3 * len(models)  # how long the header is, the header, the layers
    assert hub.tokens == set()  # they stay with the hub


def large(path: Path, target: Path) -> None:
    """A LoRA with its feed-forward layers and text encoder trained too, as most trainers do it, at four times the rank."""
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


def test_of_a_file_with_more_layers_only_those_of_the_expert_are_read(hub: Hub, encoder: Encoder) -> None:
    target = hub.folder / "large.safetensors"
    large(SHIPPED[0], target)
    model = read(hub, encoder, target.name)
    same_as_here(model, target, encoder)
    assert model.facts.title == "An icon"
    whole = LoraFile.open(target)
    needed = [
        whole.header.tensors[name]
        for layer in encoder.experts["mini-a"].layers
        for name in whole.layers[layer].needed.values()
    ]
    assert model.received == whole.header.start + sum(info.end - info.start for info in needed) == hub.sent
    assert model.received < 0.3 * target.stat().st_size  # a fifth of which is the header


@pytest.mark.parametrize("positional", [False, True])
def test_of_a_lora_for_stable_diffusion_a_small_expert_reads_less_than_a_hundredth(hub: Hub, positional: bool) -> None:
    """Two experts of one structure that read two of 128 layers; both look at the same bytes, by names or by cloneofsimo's numbers."""
    encoder = Encoder(hub.folder, SPACE, {}, Router({f"tree-{tree}": expert_of(tree) for tree in (1, 2)}, {}))
    target = hub.folder / "sd1.safetensors"
    save_lora(target, shapes(), 16, seed=0)
    tensors = load_file(target)
    for layer, factors in updates(2, 1, seed=7).items():
        tensors |= {
            f"unet.{layer}.lora.down.weight": factors.down[0].contiguous(),
            f"unet.{layer}.lora.up.weight": factors.up[0].contiguous(),
        }
    if positional:
        order = unet_order(False)
        tensors = {
            f"unet:{i}:{half}": tensors[f"{layer}.lora.{half}.weight"]
            for i, layer in enumerate(order)
            for half in ("down", "up")
        }
    save_file(tensors, target)
    model = read(hub, encoder, target.name)
    same_as_here(model, target, encoder)
    assert (model.family, len(model.layers)) == ("sd1", 128)
    assert model.received == hub.sent < 0.01 * target.stat().st_size


def test_no_more_than_the_header_is_read_where_no_expert_reads_the_family(hub: Hub, encoder: Encoder) -> None:
    target = hub.folder / "xl.safetensors"
    layer = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    tensors = {f"{layer}.lora.down.weight": torch.randn(4, 2048), f"{layer}.lora.up.weight": torch.randn(1280, 4)}
    save_file(tensors, target, {"ss_output_name": "my_style", "class_name": "style"})
    model = read(hub, encoder, target.name)
    assert (model.family, model.vector, model.facts.title, model.metadata["class_name"]) == (
        "sdxl",
        None,
        "my_style",
        "style",
    )
    assert model.received == hub.sent == LoraFile.open(target).header.start


@pytest.fixture
def peft(hub: Hub) -> Path:
    """One of the LoRAs as PEFT saves it, with its settings beside it."""
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
def test_peft_takes_its_scales_from_the_settings_beside_it(
    hub: Hub, encoder: Encoder, peft: Path, fault: Callable[[str, Handler], bool] | None
) -> None:
    hub.fault = fault
    found = opened(hub)
    file = next(file for file in found.files if file.name == "peft/adapter_model.safetensors")
    model = found.read(file, encoder)
    same_as_here(model, peft, encoder)
    assert model.received == peft.stat().st_size + peft.with_name("adapter_config.json").stat().st_size
    remote, here = LoraFile.of(found.header(file)), LoraFile.open(peft)
    assert remote.scales == here.scales == [2.0, 20.0]
    assert all(torch.equal(update.up, here.updates([layer])[layer].up) for layer, update in remote.each_update())


def test_peft_settings_that_are_none_are_refused(hub: Hub, encoder: Encoder, peft: Path) -> None:
    peft.with_name("adapter_config.json").write_text("{nope")
    with pytest.raises(
        FileCorrupt, match=f"hf://{NAME}@{SHA}/peft/adapter_model.safetensors: .* mend adapter_config.json"
    ):
        read(hub, encoder, "peft/adapter_model.safetensors")


def test_an_id_is_the_hubs_hash_or_else_the_place(hub: Hub, encoder: Encoder) -> None:
    hub.sha256 = {"icons/0.safetensors": "ab" * 32, "icons/1.safetensors": "not a hash"}
    first, second, third = opened(hub).files
    assert (first.sha256, second.sha256, third.sha256) == ("ab" * 32, None, None)
    assert (
        first.id
        == HubFile("elsewhere", 1, "hf://a/b@c/elsewhere", "ab" * 32).id
        == hashlib.sha256(b"hub file " + b"ab" * 32).hexdigest()[:20]
    )
    assert second.id == hashlib.sha256(f"hub file hf://{NAME}@{SHA}/icons/1.safetensors".encode()).hexdigest()[:20]
    assert len({first.id, second.id, third.id}) == 3
    assert read(hub, encoder, "icons/0.safetensors").id == first.id


def test_a_cut_answer_is_asked_for_again(hub: Hub, encoder: Encoder) -> None:
    hub.fault = cut(times=2, keep=500)
    model = read(hub, encoder, "icons/0.safetensors")
    same_as_here(model, SHIPPED[0], encoder)
    assert model.received == SHIPPED[0].stat().st_size + 2 * 500


def test_bad_files_are_named_and_the_others_read(hub: Hub, encoder: Encoder) -> None:
    raw = SHIPPED[0].read_bytes()
    start = LoraFile.open(SHIPPED[0]).header.start
    broken = bytearray(raw)
    broken[start : start + 2] = b"\xff\xff"  # NaN
    bad: dict[str, tuple[bytes, type[LoradexError], str]] = {
        "pickle": (b"\x80\x02}q\x00." * 50, FileUnsafe, "found a pickle"),
        "zip": (b"PK\x03\x04" * 50, FileUnsafe, "found a zip archive"),
        "short": (raw[:-10], FileCorrupt, "is cut short"),
        "head": (raw[:100], FileCorrupt, "expected a header of at most"),
        "long": (raw + b"more", FileCorrupt, "has something appended"),
        "empty": (b"", FileCorrupt, "expected a header of at most"),
        "tiny": (b"tiny", FileCorrupt, "expected a header of at most"),
        "nan": (bytes(broken), FileCorrupt, "expected finite weights"),
    }
    for name, (content, _, _) in bad.items():
        (hub.folder / f"{name}.safetensors").write_bytes(content)
    save_file({"weight": torch.ones(3)}, hub.folder / "other.safetensors")
    bad["other"] = b"", FileUnsupported, "expected LoRA factors"
    found = opened(hub)
    with ThreadPoolExecutor(4) as pool:
        waiting = {file.name: pool.submit(found.read, file, encoder) for file in found.files}
    for name, (_, kind, reason) in bad.items():
        error = waiting[f"{name}.safetensors"].exception()
        assert isinstance(error, FileError)
        assert type(error) is kind
        one_line(error, f"hf://{NAME}@{SHA}/{name}.safetensors: ", reason)
    for number, path in enumerate(SHIPPED):
        same_as_here(waiting[f"icons/{number}.safetensors"].result(), path, encoder)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (without_ranges, "ignores Range"),
        (another_range, "expected Content-Range bytes 0-8/"),
        (more_than_asked, "expected 9 bytes, found more"),
        (compressed, "found 'gzip'"),
    ],
)
def test_servers_that_send_something_else_are_refused(
    hub: Hub, encoder: Encoder, fault: Callable[[str, Handler], bool], reason: str
) -> None:
    hub.fault = fault
    with pytest.raises(FetchError) as caught:
        read(hub, encoder, "icons/0.safetensors")
    one_line(caught.value, f"hf://{NAME}@{SHA}/icons/0.safetensors: ", reason)


def test_a_size_that_is_listed_wrongly_is_noticed(hub: Hub, encoder: Encoder) -> None:
    hub.sizes["icons/0.safetensors"] = SHIPPED[0].stat().st_size - 8
    with pytest.raises(FetchError, match="expected Content-Range"):
        read(hub, encoder, "icons/0.safetensors")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("hf://someone/nothing", "expected a repository of models"),
        (f"hf://{NAME}@v2", "expected a revision 'v2'"),
        (f"hf://{NAME}@{'0' * 40}", f"expected a revision '{'0' * 40}'"),
        ("hf://someone", "expected hf://owner/name or"),
        ("hf://datasets/someone/pictures", "expected hf://owner/name or"),
        ("hf://../..", "expected hf://owner/name or"),
        (f"hf://{NAME}@a b\n", "expected hf://owner/name or"),
        (f"hf://{NAME}@{'x' * 999}", "expected hf://owner/name or"),
    ],
)
def test_what_is_not_on_the_hub_is_said(hub: Hub, place: str, reason: str) -> None:
    with pytest.raises(FetchError) as caught:
        opened(hub, place)
    one_line(caught.value, reason)


def test_names_that_the_hub_refuses_and_hubs_that_are_not_there_are_one_line(hub: Hub) -> None:
    for place, endpoint in (("hf://some--one/a..b", hub.hub), (f"hf://{NAME}", "http://127.0.0.1:9")):
        with pytest.raises(FetchError, match="cannot be listed") as caught:
            HubRepository.open(place, endpoint)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("commit", ["", "main", "../../x", 7, None, "f" * 40])
def test_a_commit_that_is_none_or_not_the_pinned_one_is_refused(hub: Hub, commit: str) -> None:
    hub.commit = commit
    with pytest.raises(FetchError) as caught:
        opened(hub, f"hf://{NAME}@{SHA}")
    one_line(caught.value, "expected a commit")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("icons/../../x.safetensors", "leads out of it"),
        ("/x.safetensors", "leads out of it"),
        ("..\\x.safetensors", "leads out of it"),
        ("C:/x.safetensors", "leads out of it"),
        ("a\nb.safetensors", "printable characters"),
        (f"{'x' * 1000}.safetensors", "printable characters"),
    ],
)
def test_names_that_no_repository_has_are_refused(hub: Hub, name: str, reason: str) -> None:
    hub.entries = [{"type": "file", "path": name, "oid": SHA, "size": 10}]
    with pytest.raises(FetchError) as caught:
        opened(hub)
    one_line(caught.value, reason)


@pytest.mark.parametrize(
    "entry",
    [
        {"size": "10"},
        {"size": -1},
        {"size": 2**64},
        {"size": None},
        {"path": 7},
        {"lfs": {"size": 1}},
        {"lfs": "x"},
        {"type": None, "oid": 0},
    ],
)
def test_entries_that_are_none_are_refused(hub: Hub, entry: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {"type": "file", "path": "x.safetensors", "oid": SHA, "size": 10} | entry
    bad = {name: value for name, value in bad.items() if value != 0}
    monkeypatch.setattr(hub, "listing", lambda folder: [bad])
    with pytest.raises(FetchError) as caught:
        opened(hub)
    assert str(caught.value).isprintable()


def test_too_many_files_are_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MOST_FILES", 2)
    with pytest.raises(FetchError) as caught:
        opened(hub)
    one_line(caught.value, "expected at most 2 .safetensors files")
    monkeypatch.setattr(listing, "MOST_ENTRIES", 2)
    with pytest.raises(FetchError) as caught:
        opened(hub)
    one_line(caught.value, "expected at most 2 files")


def test_a_repository_without_loras_is_said(hub: Hub) -> None:
    shutil.rmtree(hub.folder / "icons")
    with pytest.raises(FetchError) as caught:
        opened(hub)
    one_line(caught.value, "expected .safetensors files, found none")


def test_layers_are_read_in_bounded_parts_and_not_without_end(
    hub: Hub, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header, "LONGEST_READ", 10_000)
    same_as_here(read(hub, encoder, "icons/0.safetensors"), SHIPPED[0], encoder)
    lengths = [
        int(last) + 1 - int(first)
        for _, asked in hub.asked[2:]
        for first, last in [asked.removeprefix("bytes=").split("-")]
    ]
    assert 5 < len(lengths) < 12
    assert max(lengths) <= 10_000
    monkeypatch.setattr(header, "MOST_READ", 10_000)
    with pytest.raises(FileUnsupported) as caught:
        read(hub, encoder, "icons/0.safetensors")
    one_line(caught.value, "expected at most 10000 bytes to read")


def test_a_remote_header_never_reads_a_file_of_this_machine(hub: Hub) -> None:
    found = opened(hub)
    lora = LoraFile.of(found.header(found.files[0]))
    with pytest.raises(FileMissing, match=f"hf://{NAME}@{SHA}/icons/0.safetensors: expected a file on this machine"):
        assert lora.sha256
    assert lora.data_hash == LoraFile.open(SHIPPED[0]).data_hash
