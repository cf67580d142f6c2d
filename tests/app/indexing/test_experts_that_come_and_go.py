"""An expert that is added or removed has only files of its own family read again."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loradex.app.indexing.file_reader import FileReader
from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE
from loradex.index import KnownFile, Zoo
from loradex.retrieval.encoder import Encoder
from tests.app.describe.samples import write_lora

SHIPPED = {
    tree: sorted((MINIATURE / "models" / tree).glob("test_holdout/*/*.safetensors"))[:3]
    for tree in ("mini-a", "mini-b")
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three LoRAs of each tree, one of a family without an expert, and a broken file."""
    folder = tmp_path / "loras"
    folder.mkdir()
    for tree, paths in SHIPPED.items():
        for number, path in enumerate(paths):
            shutil.copy(path, folder / f"{tree}-{number}.safetensors")
    write_lora(folder / "sd1.safetensors")
    (folder / "broken.safetensors").write_bytes(b"nothing")
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """The miniature's encoder with the expert for tree a alone, whose base model is not named."""
    target = tmp_path / "encoder"
    shutil.copytree(MINIATURE / "encoder", target, ignore=shutil.ignore_patterns("categories", "ancestors", "mini-*"))
    (target / "experts").mkdir(exist_ok=True)
    put("mini-a", target)
    return target


def put(tree: str, encoder: Path) -> None:
    """Put a shipped expert into an encoder, without its base model."""
    expert = Encoder.load(MINIATURE / "encoder").experts[tree]
    replace(expert, base=None).save(encoder / "experts" / f"{tree}.safetensors")


def known_files(zoo: Path) -> dict[str, KnownFile]:
    with Zoo.open(zoo, read_only=True) as opened:
        return {Path(path).name: file for path, file in opened.known_files().items()}


def test_only_files_of_its_family_are_read_again(folder: Path, encoder: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    first = index_places([folder], zoo, Encoder.load(encoder))
    assert (first.added, first.by_weights, len(first.refused)) == (7, 3, 1)
    assert index_places([folder], zoo, Encoder.load(encoder)).unchanged == 7
    put("mini-b", encoder)
    second = index_places([folder], zoo, Encoder.load(encoder))
    assert (second.updated, second.by_weights, second.unchanged) == (3, 3, 4)
    assert {Path(path).name[:6] for path in second.evidence} == {"mini-b"}
    assert index_places([folder], zoo, Encoder.load(encoder)).unchanged == 7
    (encoder / "experts" / "mini-b.safetensors").unlink()
    third = index_places([folder], zoo, Encoder.load(encoder))
    assert (third.updated, third.by_weights, third.unchanged) == (3, 0, 4)


def test_the_result_is_that_of_reading_everything_again(folder: Path, encoder: Path, tmp_path: Path) -> None:
    index_places([folder], tmp_path / "grown", Encoder.load(encoder))
    put("mini-b", encoder)
    for zoo in ("grown", "new"):
        index_places([folder], tmp_path / zoo, Encoder.load(encoder))
    with Zoo.open(tmp_path / "grown", read_only=True) as grown, Zoo.open(tmp_path / "new", read_only=True) as new:
        assert grown.known_files() == new.known_files()
        ids = [model.id for model in new.models()]
        assert [model.id for model in grown.models()] == ids
        one, other = grown.positions_by_id(ids), new.positions_by_id(ids)
        assert one.keys() == other.keys() and len(one) == 6
        for id, positions in one.items():
            for kind, position in positions.items():
                assert np.array_equal(position.vector, other[id][kind].vector)
                assert (position.scale, position.bias) == (other[id][kind].scale, other[id][kind].bias)


def test_files_known_by_an_earlier_loradex_are_not_read_again(folder: Path, encoder: Path, tmp_path: Path) -> None:
    zoo, loaded = tmp_path / "zoo", Encoder.load(encoder)
    index_places([folder], zoo, loaded)
    with Zoo.open(zoo) as opened:  # as it was noted before: all experts together
        whole = FileReader(loaded).signature
        files = [replace(file, reader=whole + file.reader[len(whole) :]) for file in opened.known_files().values()]
        opened.note_files(files)
    again = index_places([folder], zoo, loaded)
    assert (again.unchanged, again.updated, again.added) == (7, 0, 0)


def test_an_expert_with_a_base_model_concerns_every_file(folder: Path, encoder: Path, tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    index_places([folder], zoo, Encoder.load(encoder))
    shutil.copy(MINIATURE / "encoder" / "experts" / "mini-b.safetensors", encoder / "experts")
    again = index_places([folder], zoo, Encoder.load(encoder))
    assert (again.updated, again.unchanged) == (7, 0)


def test_signatures_follow_the_experts_of_a_family(encoder: Path) -> None:
    before = Encoder.load(encoder)
    put("mini-b", encoder)
    after = Encoder.load(encoder)
    assert before.signature != after.signature
    assert before.signature_of("mini-b") != after.signature_of("mini-b")
    for family in ("mini-a", "sdxl", ""):
        assert before.signature_of(family) == after.signature_of(family)
    assert len({after.signature_of(family) for family in ("mini-a", "mini-b", "sdxl", "sd1", "")}) == 5
    reader = FileReader(after)
    assert {reader.signature, reader.signature_of("sdxl"), reader.signature_of("")} <= reader.current_signatures()


def test_what_is_noted_names_the_family(folder: Path, encoder: Path, tmp_path: Path) -> None:
    loaded = Encoder.load(encoder)
    index_places([folder], tmp_path / "zoo", loaded)
    known, reader = known_files(tmp_path / "zoo"), FileReader(loaded)
    for name, family in (("mini-a-0", "mini-a"), ("mini-b-0", "mini-b"), ("sd1", "sd1"), ("broken", "")):
        assert known[f"{name}.safetensors"].reader.startswith(reader.signature_of(family)), name
