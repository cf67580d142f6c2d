"""The command line end to end, in a subprocess, over the shipped zoo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loradex.app.paths import MINIATURE
from tests import few_words

LORADEX = Path(sys.executable).with_name("loradex")
SHIPPED = sorted((MINIATURE / "models" / "mini-a").glob("test_holdout/*/*.safetensors"))


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    program = few_words.LORADEX if arguments[0] == "index" else (LORADEX,)
    return subprocess.run(
        [*program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | environment,
        check=False,
    )


def document(*arguments: str | Path, status: int = 0) -> Any:
    """The JSON document of a command, which must be all that it prints on stdout."""
    done = run(*arguments, "--json")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def one_line(done: subprocess.CompletedProcess[str], status: int = 1) -> str:
    """The single line on stderr of a failed command."""
    assert done.returncode == status, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("loradex: ")
    return line


def test_help_names_every_command_without_loading_torch() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("search", "label", "index", "evaluate", "serve"))
    check = "import sys, loradex.app.commands.main; print('torch' in sys.modules, 'faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split() == [
        "False",
        "False",
    ]


def test_a_search_finds_the_models_of_a_concept() -> None:
    found = document("search", "a slice of pizza", "-k", "5")
    assert set(found) == {"query", "zoo", "space", "took_ms", "offset", "hits"}
    assert found["query"]["text"] == "a slice of pizza"
    assert len(found["hits"]) == 5
    assert set(found["hits"][0]) == {
        "id",
        "name",
        "path",
        "family",
        "score",
        "found_by",
        "concept",
        "matched",
        "probability",
        "copies",
        "scores",
        "place",
        "words",
    }
    assert [hit["score"] for hit in found["hits"]] == sorted((hit["score"] for hit in found["hits"]), reverse=True)
    assert "pizza" in [hit["concept"] for hit in found["hits"]]
    assert all(Path(hit["path"]).is_file() for hit in found["hits"])


def test_a_search_is_a_table_for_people() -> None:
    done = run("search", "a slice of pizza")
    assert done.returncode == 0
    assert "pizza" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("query", ["", "   ", "\x00\x1b"])
def test_an_empty_query_ends_in_one_line(query: str) -> None:
    if "\x00" in query:
        query = "\x1b\x07"
    assert "expected some words" in one_line(run("search", query))


def test_labels_and_refusals_in_one_run(tmp_path: Path) -> None:
    broken, text = tmp_path / "broken.safetensors", tmp_path / "text.safetensors"
    broken.write_bytes(SHIPPED[0].read_bytes()[:5000])
    text.write_text("<html>not found</html>")
    results = document("label", SHIPPED[0], broken, text, tmp_path / "absent", status=3)["results"]
    assert [len(result["labels"]) for result in results] == [5, 0, 0, 0]
    assert set(results[0]) == {"file", "family", "abstained", "reason", "next", "labels"}
    assert results[0]["family"] == "mini-a"
    assert sum(label["probability"] for label in results[0]["labels"]) <= 1
    assert [result["abstained"] for result in results[1:]] == [True] * 3


def test_labels_from_a_file(tmp_path: Path) -> None:
    concept = document("search", "penguin", "-k", "1")["hits"][0]
    (tmp_path / "words.txt").write_text(f"{concept['concept']}\n\nsteam engine\nviolin\n")
    (result,) = document("label", concept["path"], "--labels", tmp_path / "words.txt")["results"]
    assert result["labels"][0]["label"] == concept["concept"]
    assert (
        0.5 < result["labels"][0]["probability"] <= sum(label["probability"] for label in result["labels"]) < 1
    )  # the rest is "none of these"


def test_a_lora_of_an_unknown_tree_ends_in_one_line(shared_loras: Path) -> None:
    line = one_line(run("label", shared_loras / "sd15-diffusers-brain-mri.safetensors"))
    assert "found family sd1" in line


def test_a_pickle_is_refused_with_advice(shared_loras: Path) -> None:
    assert "convert it to .safetensors" in one_line(run("label", shared_loras / "sd15-pickle.bin"))


def test_indexing_a_folder_then_searching_it(tmp_path: Path, shared_loras: Path) -> None:
    folder, zoo = tmp_path / "loras", tmp_path / "zoo"
    for number, path in enumerate(SHIPPED[:3]):
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "deep" / f"file {number}.safetensors")
    shutil.copy(SHIPPED[0], folder / "copy.safetensors")
    shutil.copy(shared_loras / "sd15-diffusers-brain-mri.safetensors", folder / "brain.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    first = document("index", folder, "--zoo", zoo, status=3)
    assert (first["by_weights"], first["by_metadata"], first["unchanged"]) == (4, 1, 0)
    assert [Path(refused["file"]).name for refused in first["refused"]] == ["broken.safetensors"]
    again = document("index", folder, "--zoo", zoo, status=3)
    assert (again["by_weights"], again["by_metadata"], again["unchanged"]) == (0, 0, 5)
    hits = document("search", "anything", "--zoo", zoo)["hits"]
    assert len(hits) == 3
    assert {hit["found_by"] for hit in hits} == {"picture"}
    first, *others = document("search", "brain", "--zoo", zoo)["hits"]
    assert (first["name"], first["found_by"], first["matched"]) == ("brain", "metadata", ["metadata"])
    assert (first["score"], first["scores"], first["probability"]) == (None, {}, None)
    assert [hit["found_by"] for hit in others] == ["picture"] * 3
    copied = document("search", "copy", "--zoo", zoo)["hits"][0]
    assert "metadata" in copied["matched"] and Path(copied["place"]) == folder / "copy.safetensors"
    found = document("search", "brain", "--zoo", zoo, "--found-by", "words,preview", "--found-by", "metadata")["hits"]
    assert [hit["name"] for hit in found] == ["brain"]
    assert "expected picture, words, preview, metadata or weights" in one_line(run("zoo", "list", "--found-by", "luck"))


@pytest.mark.parametrize("command", ["index", "search"])
def test_a_missing_or_empty_place_ends_in_one_line(tmp_path: Path, command: str) -> None:
    if command == "index":
        assert "expected .safetensors files" in one_line(run("index", tmp_path, "--zoo", tmp_path / "zoo"))
        assert "found nothing there" in one_line(run("index", tmp_path / "absent", "--zoo", tmp_path / "zoo"))
        assert not (tmp_path / "zoo").exists()
    else:
        assert "expected a zoo" in one_line(run("search", "dog", "--zoo", tmp_path / "absent"))


def test_wrong_usage_has_its_own_status() -> None:
    assert run("search").returncode == 2
    assert run("search", "dog", "-k", "0").returncode == 2
    assert run("nonsense").returncode == 2
