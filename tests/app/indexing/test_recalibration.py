"""Positions without a scale and a bias, as an older Loradex wrote them, are calibrated by the next run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loradex.app.indexing import recalibration
from loradex.app.indexing.evidence.positions import calibrated
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.recalibration import NOTE, calibrate_old_positions
from loradex.app.paths import MINIATURE
from loradex.index import Evidence, Model, Position, Positions, Zoo
from loradex.retrieval.encoder import Encoder
from tests.app.describe.samples import write_lora
from tests.app.indexing.tiny_clip import save_encoder

SHIPPED = sorted(MINIATURE.glob("models/mini-a/test/*/*.safetensors"))[:3]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture
def migrated(tmp_path: Path, encoder: Encoder) -> tuple[Path, dict[str, Positions]]:
    """A zoo whose positions are as a migration left them, and the positions as they should be; no file is left."""
    folder, zoo = tmp_path / "gone", tmp_path / "zoo"
    folder.mkdir()
    for number, path in enumerate(SHIPPED):
        shutil.copy(path, folder / f"{number}.safetensors")
    shutil.copy(next((MINIATURE / "zoo" / "previews").iterdir()), folder / "0.png")
    index_places([folder], zoo, encoder)
    shutil.rmtree(folder)
    with Zoo.open(zoo) as opened:
        models = list(opened.models())
        expected = opened.positions_by_id([model.id for model in models])
        opened.add(models, [without_scales(expected[model.id]) for model in models])
    return zoo, expected


def without_scales(positions: Positions) -> Positions:
    return {kind: replace(position, scale=1.0, bias=0.0) for kind, position in positions.items()}


def positions(zoo: Path) -> dict[str, Positions]:
    with Zoo.open(zoo, read_only=True) as opened:
        return opened.positions_by_id([model.id for model in opened.models()])


def assert_same(found: Positions, expected: Positions) -> None:
    assert found.keys() == expected.keys()
    for kind, position in expected.items():
        np.testing.assert_array_equal(found[kind].vector, position.vector)
        assert (found[kind].scale, found[kind].bias) == pytest.approx((position.scale, position.bias), rel=1e-5)


def test_a_run_over_another_folder_calibrates_all_positions(
    migrated: tuple[Path, dict[str, Positions]], tmp_path: Path, encoder: Encoder
) -> None:
    zoo, expected = migrated
    assert any(Evidence.PREVIEW in each for each in expected.values())
    with Zoo.open(zoo) as opened:  # imported, of a family whose tree cannot be known
        vector = next(iter(expected.values()))[Evidence.PICTURE].vector
        opened.add([Model("imported", "imported", "of no expert")], [vector])
        added = {model.id: model.added for model in opened.models()}
        prints, files = opened.fingerprints(), opened.known_files()
    write_lora(tmp_path / "other" / "other.safetensors")
    index_places([tmp_path / "other"], zoo, encoder)
    found = positions(zoo)
    assert found.keys() == {*expected, "imported"}
    for id, of_model in expected.items():
        assert_same(found[id], of_model)
    assert_same(found["imported"], {Evidence.PICTURE: calibrated(encoder, None, vector)})
    with Zoo.open(zoo, read_only=True) as opened:
        assert opened.verify() == []
        assert added.items() <= {model.id: model.added for model in opened.models()}.items()
        assert prints.items() <= opened.fingerprints().items() and files.items() <= opened.known_files().items()


def test_a_stopped_run_goes_on(
    migrated: tuple[Path, dict[str, Positions]], encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recalibration, "BATCH", 1)
    zoo, expected = migrated
    seen: list[tuple[int, int]] = []

    def stop(done: int, total: int, name: str) -> None:
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Zoo.open(zoo) as opened:
        calibrate_old_positions(opened, encoder, stop)
    assert seen == [(1, 3), (2, 3)]
    assert [next(iter(each.values())).scale != 1 for each in positions(zoo).values()] == [True, True, False]
    with Zoo.open(zoo) as opened:
        calibrate_old_positions(opened, encoder, lambda *_: None)
        state = opened.state()
        calibrate_old_positions(opened, encoder, lambda *_: None)
        assert opened.state() == state
    for id, of_model in positions(zoo).items():
        assert_same(of_model, expected[id])


def test_positions_are_looked_at_once_for_a_state(
    migrated: tuple[Path, dict[str, Positions]], tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo, expected = migrated
    write_lora(tmp_path / "other" / "other.safetensors")
    index_places([tmp_path / "other"], zoo, encoder)
    with monkeypatch.context() as patch:
        patch.setattr(Zoo, "models", lambda *_: pytest.fail("models were read again"))
        index_places([tmp_path / "other"], zoo, encoder)
    with Zoo.open(zoo) as opened:  # another program imports old positions
        opened.add([Model("imported", "imported", "sd1")], [np.ones(encoder.space.dim)])
    index_places([tmp_path / "other"], zoo, encoder)
    assert positions(zoo)["imported"][Evidence.PICTURE].scale > 1
    (zoo / NOTE).write_bytes(b"\xff")
    index_places([tmp_path / "other"], zoo, encoder)
    assert len(positions(zoo)) == len(expected) + 1


def test_without_everyday_texts_scores_stay_cosines(tmp_path: Path) -> None:
    encoder = save_encoder(tmp_path / "encoder")
    write_lora(tmp_path / "loras" / "other.safetensors")
    index_places([tmp_path / "loras"], tmp_path / "zoo", encoder)
    with Zoo.open(tmp_path / "zoo") as opened:
        opened.add([Model("a", "a", "sd1")], [np.ones(encoder.space.dim)])
    index_places([tmp_path / "loras"], tmp_path / "zoo", encoder)
    vector = np.full(encoder.space.dim, encoder.space.dim**-0.5, np.float32)
    assert_same(positions(tmp_path / "zoo")["a"], {Evidence.PICTURE: Position(vector)})
    assert not (tmp_path / "zoo" / NOTE).exists()
