"""``inspect``, ``similar`` and ``duplicates`` over a folder with known look-alikes."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from loradex.app.commands.progress import progress_bar
from loradex.app.commands.tables.files import inspect_table
from loradex.app.describe.inspection import InspectAnswer, inspect_files
from loradex.app.paths import MINIATURE
from loradex.app.search.lookalikes import Library
from loradex.retrieval.lora import LoraFile
from tests.few_words import LORADEX

Tensors = dict[str, torch.Tensor]
SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))


def quiet(done: int, total: int, file: str) -> None:
    """No progress."""


def scaled(tensors: Tensors, factor: float) -> Tensors:
    return {name: factor * tensor if ".lora.up." in name else tensor for name, tensor in tensors.items()}


def merged(first: Tensors, second: Tensors, weight: float) -> Tensors:
    """weight * first + (1 - weight) * second, with diffusers' names."""
    result = {}
    for name in first:
        up = ".lora.up." in name
        parts = [weight * first[name], (1 - weight) * second[name]] if up else [first[name], second[name]]
        result[name] = torch.cat(parts, 1 if up else 0)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four LoRAs; the first also copied, saved in kohya's format and rescaled; a merge of two others; a broken file."""
    folder = tmp_path_factory.mktemp("loras")
    files = [load_file(path) for path in SHIPPED[:4]]
    for number, tensors in enumerate(files):
        save_file(tensors, folder / f"lora{number}.safetensors")
    save_file(files[0], folder / "copy.safetensors", metadata={"title": "another header"})
    kohya = {}
    for name, tensor in files[0].items():
        module, _, half = name.removeprefix("unet.").partition(".lora.")
        kohya[f"lora_unet_{module.replace('.', '_')}.lora_{half}"] = tensor.bfloat16()
    save_file(kohya, folder / "kohya.safetensors", metadata={"ss_network_module": "networks.lora"})
    save_file(scaled(files[0], 0.5), folder / "half.safetensors")
    balance = float(norm_of(folder / "lora1.safetensors") / norm_of(folder / "lora2.safetensors"))
    save_file(merged(files[1], scaled(files[2], balance), 0.5), folder / "merge.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nonsense")
    return folder


def norm_of(path: Path) -> float:
    return (
        sum(float((update.up @ update.down).square().sum()) for update in LoraFile.open(path).updates().values()) ** 0.5
    )


def names(paths: list[str | None]) -> list[str]:
    return [Path(str(path)).stem for path in paths]


def test_similar_names_the_relation(folder: Path) -> None:
    library = Library.from_folders([folder], quiet)
    assert names(list(library.refused)) == ["broken"]
    answer = library.similar(folder / "lora0.safetensors", 10)
    hits = {Path(str(hit.path)).stem: hit for hit in answer.hits}
    assert {name: hit.relation for name, hit in hits.items()} == {
        "copy": "same weights",
        "kohya": "same update",
        "half": "same update, other strength",
    }
    assert hits["half"].strength == pytest.approx(0.5, rel=1e-3)
    assert (answer.family, answer.merge) == ("mini-a", None)


def test_a_merge_is_taken_apart(folder: Path) -> None:
    answer = Library.from_folders([folder], quiet).similar(folder / "merge.safetensors", 10)
    assert {Path(str(hit.path)).stem: hit.relation.split(":")[0] for hit in answer.hits} == {
        "lora1": "related",
        "lora2": "related",
    }
    assert answer.merge is not None
    assert {part.name: part.weight for part in answer.merge.parts}["lora1"] == pytest.approx(0.5, abs=0.06)
    assert answer.merge.explained > 0.95


def test_duplicates_are_grouped(folder: Path) -> None:
    answer = Library.from_folders([folder], quiet).duplicates()
    (group,) = answer.groups
    assert sorted(names([hit.path for hit in group])) == ["copy", "half", "kohya", "lora0"]
    assert {frozenset(names([first.path, other.path])) for first, other in answer.related} == {
        frozenset(("merge", "lora1")),
        frozenset(("merge", "lora2")),
    }
    assert [merge.name for merge in answer.merges] == ["merge"]
    json.dumps(answer.document())


def test_a_negated_copy_is_related_to_its_source(tmp_path: Path) -> None:
    source = load_file(SHIPPED[0])
    save_file(source, tmp_path / "source.safetensors")
    save_file(scaled(source, -1.0), tmp_path / "negated.safetensors")
    save_file(load_file(SHIPPED[1]), tmp_path / "stranger.safetensors")
    library = Library.from_folders([tmp_path], quiet)
    (hit,) = library.similar(tmp_path / "negated.safetensors", 10).hits
    assert (hit.name, hit.relation, hit.strength) == ("source", "same update, negated", pytest.approx(1, rel=1e-3))
    answer = library.duplicates()
    assert (answer.groups, answer.merges) == ([], [])
    ((first, other),) = answer.related
    assert {first.name, other.name} == {"source", "negated"}
    assert (other.relation, other.cosine) == ("same update, negated", pytest.approx(-1, abs=1e-3))


def test_a_zoo_gives_the_answers_of_its_folder(folder: Path, tmp_path: Path) -> None:
    run("index", folder, "--zoo", tmp_path / "zoo", status=3)
    stored = Library.from_zoo(tmp_path / "zoo", quiet)
    assert stored.refused == {}
    hits = stored.similar(folder / "lora0.safetensors", 10).hits
    assert sorted(names([hit.path for hit in hits])) == ["copy", "half", "kohya"]
    (group,) = stored.duplicates().groups
    assert len(group) == 4


def test_the_shipped_zoo_has_no_duplicates() -> None:
    answer = Library.from_zoo(MINIATURE / "zoo", quiet).duplicates()
    assert (answer.groups, answer.merges, answer.refused) == ([], [], {})
    assert answer.compared == 300


def test_the_commands(folder: Path) -> None:
    inspected = run("inspect", folder, "--json", status=3)["files"]
    assert len(inspected) == 8
    kohya = next(file for file in inspected if file["file"].endswith("kohya.safetensors"))
    assert (kohya["format"], kohya["family"], kohya["trainer"], kohya["scales"]) == ("kohya", "mini-a", "kohya", [1.0])
    assert len(run("similar", folder / "lora0.safetensors", "--folder", folder, "--json", status=3)["hits"]) == 3
    assert len(run("duplicates", folder, "--json", status=3)["groups"]) == 1
    assert "sha256" in run("inspect", folder / "half.safetensors", "--hash", "--json")["files"][0]


def run(*arguments: object, status: int = 0) -> dict[str, list[dict[str, object]]]:
    """The JSON of a command."""
    done = command(*arguments)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else {}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    return subprocess.run([*LORADEX, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_a_thousand_headers_are_read_without_their_data(tmp_path: Path) -> None:
    """Less than one percent of the bytes of files of 13 MB."""
    io = Path("/proc/self/io")
    if not io.exists():
        pytest.skip("needs /proc/self/io")
    blocks = [
        f"unet.down_blocks.{b}.attentions.{a}.transformer_blocks.0.attn{i}.to_{x}"
        for b in range(3)
        for a in range(2)
        for i in (1, 2)
        for x in "qkv"
    ]
    tensors = {}
    for block in blocks:
        width = (320, 640, 1280)[int(block.split(".")[2])]
        context = 768 if "attn2" in block and block[-1] in "kv" else width
        tensors |= {
            f"{block}.lora.down.weight": torch.zeros(64, context),
            f"{block}.lora.up.weight": torch.zeros(width, 64),
        }
    save_file(tensors, tmp_path / "0.safetensors")
    for i in range(1, 1000):
        (tmp_path / f"{i}.safetensors").hardlink_to(tmp_path / "0.safetensors")
    size = (tmp_path / "0.safetensors").stat().st_size
    assert size > 13_000_000
    before = int(io.read_text().split()[1])
    answer = inspect_files([tmp_path], False, quiet)
    assert len(answer.files) == 1000
    assert {found["family"] for found in answer.files} == {"sd1"}
    assert int(io.read_text().split()[1]) - before < 0.01 * 1000 * size


def test_file_names_cannot_control_the_terminal(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In titles, cells, progress and errors, also with names that are not UTF-8."""
    path = tmp_path / os.fsdecode(b"\x1b]0;title\x07\x9b31m\xff\x1b[2J.safetensors")
    path.write_bytes((folder / "lora0.safetensors").read_bytes())
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    absent = tmp_path / "\x1b[2J"
    for arguments in (
        ["inspect", path],
        ["inspect", path, path, absent],
        ["inspect", path, absent, "--json"],
        ["similar", path, "--folder", tmp_path],
    ):
        done = command(*arguments)
        assert done.returncode in (0, 3)
        assert not any(c in done.stdout + done.stderr for c in "\x1b\x07\x9b")
    shown: list[str] = []
    monkeypatch.setattr(
        "loradex.app.commands.progress.Progress.update", lambda *_, description, **__: shown.append(description)
    )
    with progress_bar() as progress:
        progress(1, 2, path.name)
    assert shown[0].isprintable()


def test_an_error_of_the_system_is_one_line() -> None:
    done = command("duplicates", "b" * 5000)
    assert (done.returncode, done.stderr.startswith("loradex: "), done.stderr.count("\n")) == (1, True, 1)


def test_problems_and_notes_are_shown_on_one_line() -> None:
    found = {"file": "x", "problems": ["one", "two"], "notes": "first\nsecond\x1b"}
    assert inspect_table(InspectAnswer([found], {})).rows == [("problems", "one; two"), ("notes", "first second?")]
