"""Files with the same weights: each is found by its own name and words, and one that remains gives the model's row."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from loradex.app.indexing.ingest import index_places
from loradex.app.paths import MINIATURE
from loradex.index import Evidence, KnownFile, Position, Zoo
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from tests.app.describe.samples import write_lora


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """One LoRA under two names, with a side-car each; the first was indexed as ``cats/whiskers``."""
    folder = tmp_path / "loras"
    lora = write_lora(folder / "cats" / "whiskers.safetensors", modelspec__title="Whisker Style")
    (folder / "old").mkdir()
    shutil.copy(lora.path, folder / "old" / "watercolour_v2.safetensors")
    describe(folder / "cats" / "whiskers.json", "wsk")
    describe(folder / "old" / "watercolour_v2.json", "wtr")
    return folder


def describe(path: Path, trigger: str) -> None:
    path.write_text(json.dumps({"activation text": trigger, "notes": f"notes on {trigger}"}))


def row(zoo: Path) -> tuple[str, str, list[str]]:
    """Name, file name and trigger words of the only model."""
    with Zoo.open(zoo, read_only=True) as opened:
        (model,) = opened.models()
    return model.name, Path(str(model.path)).name, model.facts["trigger_words"]


def found(zoo: Path, *words: str) -> list[bool]:
    """Whether the only model is found by each word."""
    with Zoo.open(zoo, read_only=True) as opened:
        assert opened.verify() == []
        return [len(opened.find([word])) == 1 for word in words]


WORDS = ("whiskers", "wsk", "cats", "watercolour", "wtr", "old")


def test_a_model_is_found_by_the_name_and_words_of_each_file(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo = tmp_path / "zoo"
    answer = index_places([loras], zoo, encoder)
    assert (answer.added, answer.copies) == (1, 1)
    assert row(zoo) == ("whiskers", "whiskers.safetensors", ["wsk"])
    assert found(zoo, *WORDS) == [True] * 6
    with Zoo.open(zoo, read_only=True) as opened:
        files = {Path(path).name: (file.name, file.facts) for path, file in opened.known_files().items()}
        assert opened.counts("tag") == {"wsk": 1, "wtr": 1}
    title = {"title": "Whisker Style"}
    assert files == {
        "whiskers.safetensors": ("whiskers", title | {"trigger_words": ["wsk"], "notes": "notes on wsk"}),
        "watercolour_v2.safetensors": ("watercolour_v2", title | {"trigger_words": ["wtr"], "notes": "notes on wtr"}),
    }


def prune(loras: Path, zoo: Path, encoder: Encoder) -> None:
    """The file is removed, and the zoo forgets it."""
    (loras / "cats" / "whiskers.safetensors").unlink()
    answer = index_places([loras], zoo, encoder, prune=True)
    assert (answer.removed, len(answer.missing), answer.unchanged) == (0, 1, 1)


def replace_by_another(loras: Path, zoo: Path, encoder: Encoder) -> None:
    """The file now holds another LoRA."""
    write_lora(loras / "cats" / "whiskers.safetensors", "wan")
    assert index_places([loras], zoo, encoder).added == 1
    with Zoo.open(zoo) as opened:  # the other model is out of the way
        opened.remove([LoraFile.open(loras / "cats" / "whiskers.safetensors").id])


def replace_by_a_bad_one(loras: Path, zoo: Path, encoder: Encoder) -> None:
    """The file cannot be read any more."""
    (loras / "cats" / "whiskers.safetensors").write_text("<!DOCTYPE html>")
    assert len(index_places([loras], zoo, encoder).refused) == 1


@pytest.mark.parametrize("lose", [prune, replace_by_another, replace_by_a_bad_one])
def test_a_remaining_file_gives_the_row(
    loras: Path, tmp_path: Path, encoder: Encoder, lose: Callable[[Path, Path, Encoder], None]
) -> None:
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder)
    with Zoo.open(zoo, read_only=True) as opened:
        (before,) = opened.models()
        fingerprints = opened.fingerprints()
    lose(loras, zoo, encoder)
    assert row(zoo) == ("watercolour_v2", "watercolour_v2.safetensors", ["wtr"])
    assert found(zoo, *WORDS) == [False] * 3 + [True] * 3
    with Zoo.open(zoo, read_only=True) as opened:
        (after,) = opened.models()
        assert opened.fingerprints() == fingerprints
    assert (after.id, after.family, after.added) == (before.id, before.family, before.added)
    assert {name: after.facts[name] for name in ("format", "ranks", "layers", "no_expert")} == {
        name: before.facts[name] for name in ("format", "ranks", "layers", "no_expert")
    }


def test_a_renamed_file_takes_the_row_though_a_copy_exists(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder)
    (loras / "cats" / "whiskers.safetensors").rename(loras / "cats" / "tabby.safetensors")
    describe(loras / "cats" / "tabby.json", "tby")
    answer = index_places([loras], zoo, encoder)
    assert (answer.moved, answer.unchanged, answer.missing) == (1, 1, [])
    assert row(zoo) == ("tabby", "tabby.safetensors", ["tby"])
    assert found(zoo, "whiskers", "wsk", "tabby", "tby", "wtr") == [False, False, True, True, True]


def test_files_of_an_older_loradex_keep_what_is_known(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    """They were noted without names and words."""
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder)
    with Zoo.open(zoo) as opened:
        files = opened.known_files().values()
        older = [KnownFile(file.path, file.size, file.mtime_ns, file.model_id, reader=file.reader) for file in files]
        opened.note_files(older)
    assert found(zoo, *WORDS) == [True, True, True, False, False, True]
    (loras / "cats" / "whiskers.safetensors").unlink()
    index_places([loras], zoo, encoder, prune=True)
    assert row(zoo) == ("watercolour_v2", "watercolour_v2.safetensors", ["wsk"])


def preview(zoo: Path) -> list[float] | None:
    """The vector of the only model by its preview."""
    with Zoo.open(zoo, read_only=True) as opened:
        (model,) = opened.models()
        position = opened.positions_by_id([model.id]).get(model.id, {}).get(Evidence.PREVIEW)
    return None if position is None else position.vector.tolist()


def test_pictures_beside_a_copy_may_change_and_go(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo, picture = tmp_path / "zoo", loras / "old" / "watercolour_v2.png"
    index_places([loras], zoo, encoder)
    drawings = sorted((MINIATURE / "zoo" / "previews").glob("*.png"))
    seen = []
    for number in (0, 50):
        shutil.copy(drawings[number], picture)
        os.utime(picture, (number, number))
        assert index_places([loras], zoo, encoder).copies == 1
        seen.append(preview(zoo))
        expected = encoder.encode_pictures([Image.open(drawings[number])])[0].tolist()
        assert seen[-1] == pytest.approx(expected, abs=1e-4)
    assert seen[0] != seen[1]
    picture.unlink()
    assert index_places([loras], zoo, encoder).copies == 1
    assert preview(zoo) is None


@pytest.mark.parametrize("is_row", [True, False])
def test_the_preview_goes_with_the_last_file_that_had_pictures(
    loras: Path, tmp_path: Path, encoder: Encoder, is_row: bool
) -> None:
    zoo = tmp_path / "zoo"
    gone, kept = loras / "cats" / "whiskers", loras / "old" / "watercolour_v2"
    if not is_row:
        gone, kept = kept, gone
    drawings = sorted((MINIATURE / "zoo" / "previews").glob("*.png"))
    shutil.copy(drawings[0], gone.with_suffix(".png"))
    index_places([loras], zoo, encoder)
    shutil.copy(drawings[50], kept.with_suffix(".png"))
    index_places([loras], zoo, encoder)
    gone.with_suffix(".safetensors").unlink()
    index_places([loras], zoo, encoder, prune=True)
    expected = encoder.encode_pictures([Image.open(drawings[50])])[0].tolist()
    assert preview(zoo) == pytest.approx(expected, abs=1e-4)  # by the pictures of the other file

    shutil.copy(kept.with_suffix(".safetensors"), gone.with_suffix(".safetensors"))
    kept.with_suffix(".png").unlink()
    index_places([loras], zoo, encoder)
    assert preview(zoo) is not None
    gone.with_suffix(".safetensors").unlink()
    index_places([loras], zoo, encoder, prune=True)
    assert preview(zoo) is None


def test_a_copy_renews_outdated_positions_of_its_model(tmp_path: Path, encoder: Encoder) -> None:
    shipped, zoo = sorted(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))[0], tmp_path / "zoo"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(shipped, tmp_path / name / f"{name}.safetensors")
    index_places([tmp_path / "a", tmp_path / "b"], zoo, encoder)
    with Zoo.open(zoo) as opened:
        (model,) = opened.models()
        expected = opened.positions_by_id([model.id])[model.id][Evidence.PICTURE]
        opened.add([model], [{Evidence.PICTURE: Position(-expected.vector, 3.0, -2.0)}])
        opened.note_files([replace(file, reader="older") for file in opened.known_files().values()])
    assert index_places([tmp_path / "b"], zoo, encoder).copies == 1
    with Zoo.open(zoo, read_only=True) as opened:
        position = opened.positions_by_id([model.id])[model.id][Evidence.PICTURE]
        assert opened.get(model.id).name == "a"
    assert (position.scale, position.bias) == pytest.approx((expected.scale, expected.bias), rel=1e-4)
    assert position.vector == pytest.approx(expected.vector, abs=1e-5)


def test_a_replaced_model_without_another_file_goes_when_pruned(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo, file = tmp_path / "zoo", loras / "cats" / "whiskers.safetensors"
    (loras / "old" / "watercolour_v2.safetensors").unlink()
    index_places([loras], zoo, encoder)
    file.write_text("<!DOCTYPE html>")
    assert index_places([loras], zoo, encoder, prune=True).removed == 0  # it may be put right again
    new = write_lora(file, "wan")
    assert index_places([loras], zoo, encoder).removed == 0
    write_lora(loras / "elsewhere" / "another.safetensors", "unknown")
    assert index_places([loras / "elsewhere"], zoo, encoder, prune=True).removed == 0
    assert index_places([loras], zoo, encoder, prune=True).removed == 1
    with Zoo.open(zoo, read_only=True) as opened:
        assert opened.has(new.id) and len(opened) == 2


def test_pictures_beside_a_copy_place_the_model(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    """Until the file that gives the row has pictures itself; and those of the other count again when it has none."""
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder)
    (shipped,) = sorted((MINIATURE / "zoo" / "previews").glob("*.png"))[:1]
    shutil.copy(shipped, loras / "old" / "watercolour_v2.png")
    answer = index_places([loras], zoo, encoder)
    assert (answer.copies, answer.by_preview, answer.unchanged) == (1, 1, 1)
    assert row(zoo)[0] == "whiskers"

    def vector() -> list[float]:
        with Zoo.open(zoo, read_only=True) as opened:
            (model,) = opened.models()
            return [float(number) for number in opened.positions_by_id([model.id])[model.id][Evidence.PREVIEW].vector]

    by_copy = vector()
    Image.new("RGB", (64, 64), "red").save(loras / "cats" / "whiskers.png")
    assert index_places([loras], zoo, encoder).updated == 1
    by_row = vector()
    assert by_row != by_copy
    os.utime(loras / "old" / "watercolour_v2.safetensors")  # read again, as a copy
    index_places([loras], zoo, encoder)
    assert vector() == by_row
    os.utime(loras / "cats" / "whiskers.safetensors")
    (loras / "old" / "watercolour_v2.png").unlink()
    index_places([loras], zoo, encoder)
    assert vector() == by_row
    (loras / "cats" / "whiskers.png").unlink()
    index_places([loras], zoo, encoder)
    with Zoo.open(zoo, read_only=True) as opened:
        assert [model.found_by for model in opened.models()] == [Evidence.METADATA]


def test_files_that_swap_their_names_swap_the_rows(tmp_path: Path, encoder: Encoder) -> None:
    folder, zoo = tmp_path / "loras", tmp_path / "zoo"
    first, second = write_lora(folder / "a.safetensors").id, write_lora(folder / "b.safetensors", "wan").id
    index_places([folder], zoo, encoder)
    (folder / "a.safetensors").rename(folder / "t")
    (folder / "b.safetensors").rename(folder / "a.safetensors")
    (folder / "t").rename(folder / "b.safetensors")
    for time, name in enumerate("ab", 1):
        os.utime(folder / f"{name}.safetensors", (time, time))
    index_places([folder], zoo, encoder)
    with Zoo.open(zoo, read_only=True) as opened:
        names = {id: (opened.get(id).name, Path(str(opened.get(id).path)).name) for id in (first, second)}
    assert names == {first: ("b", "b.safetensors"), second: ("a", "a.safetensors")}


def test_a_model_whose_file_broke_and_went_is_pruned(loras: Path, tmp_path: Path, encoder: Encoder) -> None:
    zoo, file = tmp_path / "zoo", loras / "cats" / "whiskers.safetensors"
    (loras / "old" / "watercolour_v2.safetensors").unlink()
    other = write_lora(loras / "other.safetensors", "wan").id
    index_places([loras], zoo, encoder)
    file.write_text("<!DOCTYPE html>")
    index_places([loras], zoo, encoder)
    file.unlink()
    assert index_places([loras], zoo, encoder, prune=True).removed == 1
    with Zoo.open(zoo, read_only=True) as opened:
        assert [model.id for model in opened.models()] == [other]
