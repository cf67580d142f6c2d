"""Tables of every command at several widths: names are whole, lines fit, a pipe gets every column."""

import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType
from safetensors.torch import load_file, save_file

from loradex.app.commands.tables.draw import drawings_table
from loradex.app.commands.tables.experts import evaluation_tables, train_table
from loradex.app.commands.tables.files import categories_table, describe_table, inspect_table, labels_table
from loradex.app.commands.tables.find import duplicates_table, hits_table, similar_table
from loradex.app.commands.tables.library import index_table
from loradex.app.commands.tables.zoo import facts_tables, models_table, problems_table
from loradex.app.describe.descriptions import describe_files
from loradex.app.describe.inspection import inspect_files
from loradex.app.experts.category_prediction import predict_categories
from loradex.app.experts.training import TrainAnswer
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.ingest import index_places
from loradex.app.models import model_document
from loradex.app.paths import MINIATURE
from loradex.app.search.answers import SearchAnswer
from loradex.app.search.lookalikes import DuplicatesAnswer, Library, LookalikeHit, MergeAnswer, WeightedLora
from loradex.app.search.service import Loradex
from loradex.index import open_zoo
from loradex.retrieval.encoder import Encoder

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test_holdout/*/*.safetensors"))
NAMES = [
    "Cinematic_Portrait_Style_v2.1-rank64-000010",  # a usual name
    "ink",
    "A name with spaces, (brackets) and a version v1.0 - epoch 10",
    "very-detailed-" * 5 + "x",  # 71 characters, and the file's ending: longer than the narrow terminal
]
FOLDERS = [
    "styles/portraits of people",
    ".",
    "objects",
    "a/very/long/path/to/the/folder/of/styles/with/many/parts/of/it",
]
WIDTHS = [80, 160]


def quiet(done: int, total: int, file: str) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LoRAs with long names in nested folders, one of them saved twice, and a LoRA of no known base model."""
    folder = tmp_path_factory.mktemp("loras")
    for path, name, below in zip(SHIPPED, NAMES, FOLDERS, strict=False):
        (folder / below).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / below / f"{name}.safetensors")
    again = {name: tensor.bfloat16() for name, tensor in load_file(SHIPPED[0]).items()}
    save_file(again, folder / "the same update in bfloat16.safetensors", {"ss_output_name": "title"})
    return folder


@pytest.fixture(scope="module")
def indexed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Loradex, IndexAnswer]:
    """A zoo of these LoRAs, and the answer of indexing them."""
    zoo = tmp_path_factory.mktemp("zoo") / "zoo"
    return Loradex(zoo, MINIATURE / "encoder"), index_places([folder], zoo, Encoder.load(MINIATURE / "encoder"))


def files_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def rendered(table: RenderableType, width: int | None) -> list[str]:
    """The lines of a table in a terminal of this width; None is a pipe."""
    console = Console(file=StringIO(), width=width or 80, force_terminal=width is not None, color_system=None)
    console.print(table, soft_wrap=True)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def readable(table: RenderableType, width: int, names: Iterable[str], folders: Iterable[str] = ()) -> list[str]:
    """The lines of a table, after checks that they fit, and that every name and folder is in one of them."""
    lines = rendered(table, width)
    assert max(map(cell_len, lines)) <= width
    for name in names:
        found = any(name in line for line in lines)
        assert found or cell_len(name) > width and name in "".join(line.strip() for line in lines)
    for each in folders:
        assert any(each.partition("/")[0] in line and each.rpartition("/")[2] in line for line in lines)
    return lines


def headings(lines: Sequence[str]) -> list[str]:
    """The headings of the first table."""
    rule = next(number for number, line in enumerate(lines) if line.startswith("─"))
    return re.split(r" {2,}", lines[rule - 1].strip())


@pytest.mark.parametrize("width", WIDTHS)
def test_search(indexed: tuple[Loradex, IndexAnswer], width: int) -> None:
    loradex, _ = indexed
    answer = loradex.search("a portrait", 10)
    names = [hit.model.name for hit in answer.hits]
    assert len(names) == 4
    lines = readable(hits_table(answer), width, names, set(FOLDERS) - {"."})
    ids = [hit.model.id for hit in answer.hits]
    assert any(id in "".join(lines) for id in ids) == (width >= 120)
    readable(hits_table(answer, ids=True), width, [*names, *ids])
    assert {"score", "likely", "name", "family"} <= set(headings(lines))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_search_of_the_shipped_zoo(width: int) -> None:
    """The folders are whole, as is their common folder, and every column is there where there is room."""
    answer = Loradex(MINIATURE / "zoo").search("a slice of pizza", 10)
    paths = [Path(str(hit["path"])).parent.relative_to(MINIATURE / "models") for hit in document_hits(answer)]
    lines = readable(hits_table(answer), width, [hit.model.name for hit in answer.hits])
    assert all(any(str(path) in line for line in lines) for path in paths)
    assert "in" + str(MINIATURE / "models") + "andbelow" in "".join(lines).replace(" ", "")
    assert headings(lines)[:4] == ["score", "likely", "name", "folder" if width == 160 else "concept"]
    assert ("id" in headings(lines)) == (width == 160)


def document_hits(answer: SearchAnswer) -> list[dict[str, Any]]:
    hits = answer.document()["hits"]
    assert isinstance(hits, list)
    return hits


@pytest.mark.parametrize("width", WIDTHS)
def test_label_inspect_and_describe(folder: Path, width: int) -> None:
    files = files_in(folder)
    names, below = [file.name for file in files], set(FOLDERS) - {"."}
    loradex = Loradex(MINIATURE / "zoo")
    answers = list(loradex.label([*map(str, files), str(folder / "none.safetensors")]))
    labels = [
        f"{label.label} {label.probability:.0%}"
        for answer in answers
        if not answer.abstained
        for label in answer.labels
    ]
    lines = readable(labels_table(answers), width, [*names, *labels], below)
    assert lines[0] == f"{len(files)} of {len(files) + 1} files"
    inspected = inspect_files([folder], False, quiet)
    assert {"family", "format", "rank"} <= set(headings(readable(inspect_table(inspected), width, names, below)))
    single = inspect_files([files[0]], True, quiet)
    facts = [str(fact) for fact in single.files[0].values() if fact and not isinstance(fact, list)]
    readable(inspect_table(single), width, [fact for fact in facts if "/" not in fact], [])
    described = describe_files([folder], loradex, "side-car", None, dry_run=True, progress=quiet)
    lines = readable(describe_table(described), width, [file.stem for file in files])
    assert sum("model_name" in line for line in lines) == len(files)


@pytest.mark.parametrize("width", WIDTHS)
def test_index(indexed: tuple[Loradex, IndexAnswer], width: int, tmp_path: Path, shared_loras: Path) -> None:
    """The advice is whole."""
    _, answer = indexed
    assert any(line.startswith("read by weights") for line in readable(index_table(answer), width, []))
    unread = index_places([shared_loras], tmp_path / "zoo", Encoder.load(MINIATURE / "encoder"))
    assert unread.advice is not None and len(unread.advice) > width
    lines = readable(index_table(unread), width, [path.name for path in files_in(shared_loras)])
    assert unread.advice in " ".join(lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_similar_and_duplicates(folder: Path, width: int) -> None:
    library = Library.from_folders([folder], quiet)
    (file,) = folder.rglob(f"{NAMES[0]}.safetensors")
    readable(similar_table(library.similar(file, 10)), width, ["the same update in bfloat16.safetensors"])
    answer = library.duplicates()
    assert len(answer.groups) == 1
    lines = readable(duplicates_table(answer), width, [Path(str(like.path)).name for like in answer.groups[0]])
    assert any(line.startswith("group 1") for line in lines)
    first, second = (WeightedLora(name, name, f"/loras/{name}.safetensors", 0.5) for name in NAMES[:2])
    other = LookalikeHit("x", NAMES[2], None, "related: other rank, checkpoint or merge", 0.7, 1.0)
    merge = MergeAnswer(NAMES[2], None, [first, second], 0.97)
    related = DuplicatesAnswer(60, [], [(first, other)] * 60, [merge], {})
    lines = readable(duplicates_table(related), width, [f"{NAMES[0]}.safetensors", NAMES[2]])
    assert "10 more related pairs" in " ".join(lines) and "0.50 x ink (97% of it)" in " ".join(lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_zoo(indexed: tuple[Loradex, IndexAnswer], width: int) -> None:
    loradex, _ = indexed
    with open_zoo(loradex.zoo_folder, read_only=True) as zoo:
        models, place = list(zoo.models()), str(zoo.folder)
        files = zoo.files_by_model([model.id for model in models])
    lines = readable(
        models_table(place, "space", models), width, [model.name for model in models], set(FOLDERS) - {"."}
    )
    assert any(models[0].id in line for line in lines) == (width >= 120)
    readable(models_table(place, "space", models, ids=True), width, [model.id for model in models])
    documents = [
        model_document(model, place) | {"files": [{"path": file.path} for file in files[model.id]]} for model in models
    ]
    readable(facts_tables(documents), width, [model.name for model in models] + [model.id for model in models])
    problem = f"{place}: model {models[0].name}: expected a vector, found none"
    assert (
        problem in "".join(readable(problems_table(place, 3, [problem]), width, [])).replace("─", "") or " " in problem
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_categories(width: int) -> None:
    files = sorted(map(str, (MINIATURE / "classifiers" / "mini-vit").rglob("*.safetensors")))[:2]
    answers = list(predict_categories(Encoder.load(MINIATURE / "encoder"), files))
    named = [name for answer in answers for name in answer.line.split(", ")]
    readable(
        categories_table(answers, 0.95),
        width,
        [Path(files[0]).name, *named],
        [Path(file).parent.name for file in files],
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_draw(width: int) -> None:
    results = [
        {"file": f"/loras/{below}/{name}.safetensors", "family": "sdxl", "picture": f"out/{name}.png", "took_s": 12.34}
        for name, below in zip(NAMES, FOLDERS, strict=True)
    ]
    names = [f"{name}.safetensors" for name in NAMES] + [f"{name}.png" for name in NAMES[:2]]
    readable(drawings_table(results), width, names, set(FOLDERS) - {"."})


@pytest.mark.parametrize("width", WIDTHS)
def test_train(width: int) -> None:
    layers = {f"down_blocks.{n}.attentions.0.transformer_blocks.0.attn2.to_v": 0.5 - n / 10 for n in range(3)}
    splits = {"train": 100, "validation": 20, "test_holdout": 30}
    expert = "/home/user/.local/share/loradex/encoder/experts/" + NAMES[0] + ".safetensors"
    answer = TrainAnswer(
        expert, "sdxl", "sdxl", "clip-1234", "loradex", layers, splits, splits, "pictures", 3, {"top 1": 0.5}, 20, 9.5
    )
    readable(train_table(answer), width, [Path(expert).name, *layers])


@pytest.mark.parametrize("width", WIDTHS)
def test_evaluate(width: int) -> None:
    """Baselines stand beside the metrics, or below them where there is no room."""
    measured = {name: json.loads((MINIATURE / "measured" / f"{name}.json").read_text("utf-8")) for name in MEASURED}
    metrics = next(iter(measured["elsewhere"].values()))
    baselines = {name: metrics for name in ("dense_linear", "weight_statistics", "file_names")}
    changed = {"bfloat16": {name: metrics["text_to_model_map"] for name in ("zero_shot_top1_all", "cosine")}}
    document = {
        "zoo": "miniature/mini-a",
        "metrics": metrics,
        "baselines": baselines,
        "changed_files": changed,
        "measured_while_building": measured,
    }
    encoders = {row["encoder"] for row in measured["reading-a"]}
    lines = readable(evaluation_tables(document), width, [*metrics, *baselines, *measured["elsewhere"]])
    assert all(encoder in re.sub(r"\s+", " ", " ".join(lines)) or width < 160 for encoder in encoders)
    beside = any("Loradex" in line and "dense_linear" in line for line in lines)
    assert beside == (width == 160)
    values = [f"{100 * metric['value']:.1f} [" for metric in metrics.values()]
    assert all(sum(value in line for line in lines) >= (2 if beside else 5) for value in values)


MEASURED = ["elsewhere", "reading-a", "categories-mini-vit"]


def test_a_pipe_gets_every_column_on_one_line_whatever_the_width(
    indexed: tuple[Loradex, IndexAnswer], monkeypatch: pytest.MonkeyPatch
) -> None:
    loradex, _ = indexed
    answer = loradex.search("a portrait", 10)
    monkeypatch.setenv("COLUMNS", "30")
    title, heading, *rows = rendered(hits_table(answer), None)
    assert title.startswith("a portrait: 4 models")
    assert heading.split()[-1] == "id" and "path" in heading and "found by" in heading
    assert len(rows) == 4
    for row, hit in zip(rows, document_hits(answer), strict=True):
        assert str(hit["path"]) in row and str(hit["name"]) in row and row.endswith(str(hit["id"]))


@pytest.mark.parametrize("width", [12, 30, 45])
def test_very_narrow_terminals_lose_no_name(folder: Path, width: int) -> None:
    lines = rendered(inspect_table(inspect_files([folder], False, quiet)), width)
    assert max(map(cell_len, lines)) <= width
    together = "".join(lines).replace(" ", "")
    assert all(file.name.replace(" ", "") in together for file in files_in(folder))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("width", WIDTHS)
def test_the_command_takes_the_width_of_the_terminal(folder: Path, width: int) -> None:
    import fcntl
    import termios

    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [Path(sys.executable).with_name("loradex"), "inspect", folder]
    with subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment | {"TERM": "xterm"}
    ):
        os.close(terminal)
        output = b""
        while True:
            try:
                read = os.read(controller, 65536)
            except OSError:  # the command has ended
                break
            output += read
            if not read:
                break
    os.close(controller)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode()).replace("\r", "\n")
    lines = [line for line in text.splitlines() if line]
    widest = max(map(cell_len, lines))
    assert widest <= width and (widest > 80) == (width == 160)
    assert all(any(file.name in line for line in lines) for file in files_in(folder) if cell_len(file.name) <= width)
