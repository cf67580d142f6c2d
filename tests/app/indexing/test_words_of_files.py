"""Words in weights become evidence while files are indexed, once for each base model, and stay where there is none."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from loradex.app.bases import Bases, NoBase
from loradex.app.bases.shipped import shipped_base
from loradex.app.indexing.answer import IndexAnswer
from loradex.app.indexing.ingest import index_places
from loradex.app.indexing.words_mark import mark_of
from loradex.app.paths import MINIATURE
from loradex.app.search.service import Loradex
from loradex.app.words import WordsService
from loradex.index import Evidence, Filter, Zoo
from loradex.retrieval.base_model import BaseModel
from loradex.retrieval.encoder import Encoder
from loradex.retrieval.lora import LoraFile
from tests.app.describe.samples import write_lora
from tests.app.words.captioned import SHIPPED, write_captioned

NO_BASES = Bases({}, ())


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(MINIATURE / "encoder")


@pytest.fixture(scope="module")
def words() -> WordsService:
    return WordsService(NO_BASES)


@pytest.fixture(scope="module")
def dog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioned(tmp_path_factory.mktemp("dog") / "x 1.safetensors", "dog")


@pytest.fixture
def loras(dog: Path, tmp_path: Path) -> Path:
    """A LoRA with a caption, one without, and one of a family without a base model."""
    folder = tmp_path / "loras"
    write_lora(folder / "sd1.safetensors")
    shutil.copy(dog, folder / "x 1.safetensors")
    shutil.copy(SHIPPED, folder / "icon.safetensors")
    return folder


def counts(answer: IndexAnswer) -> tuple[int, int, int]:
    """Files that words place, files that were read, unchanged files."""
    return answer.by_words, answer.read_count, answer.unchanged


def marks(zoo: Path) -> dict[str, str]:
    """The marks of the files, by name."""
    with Zoo.open(zoo, read_only=True) as opened:
        return {Path(path).name: mark_of(file.reader) for path, file in opened.known_files().items()}


def test_words_become_evidence_by_which_a_model_is_found(
    loras: Path, tmp_path: Path, encoder: Encoder, words: WordsService
) -> None:
    zoo, seen = tmp_path / "zoo", list[str]()
    answer = index_places([loras], zoo, encoder, lambda done, total, name: seen.append(name), words=words)
    assert counts(answer) == (1, 3, 0)
    assert answer.waiting_for_base == {"sd1": 1}
    assert answer.document()["by_words"] == 1
    assert "1 files were trained with" in str(answer.words_advice) and "`loradex base add --find`" in str(
        answer.words_advice
    )
    assert "x 1.safetensors" in seen
    id = LoraFile.open(loras / "x 1.safetensors").id
    found = words.read_path(loras / "x 1.safetensors").likely
    with Zoo.open(zoo, read_only=True) as opened:
        model, positions = opened.get(id), opened.positions_by_id([id])[id]
        assert Evidence.WORDS in model.evidence
        assert model.facts["words"] == [[word.word, round(word.probability, 3)] for word in found]
        assert model.facts["words"][0][0] == "dog"
        weights = np.array([probability for _, probability in model.facts["words"]], np.float32)
        mean = weights @ encoder.encode_texts([word for word, _ in model.facts["words"]]).numpy()
        np.testing.assert_allclose(positions[Evidence.WORDS].vector, mean / np.linalg.norm(mean), atol=1e-5)
        assert positions[Evidence.WORDS].is_calibrated
        assert [each.id for each in opened.find(["dog"])] == [id]
        others = [each for each in opened.models() if each.id != id]
        assert all("words" not in each.facts and Evidence.WORDS not in each.evidence for each in others)
    hit = Loradex(zoo, encoder.folder).search("dog", where=Filter(found_by=("words",))).hits[0]
    assert (hit.model.id, hit.found_by) == (id, Evidence.WORDS)
    assert Loradex(zoo, encoder.folder).search("dog").hits[0].model.id == id


def test_unchanged_files_are_read_once_for_each_base_model(
    loras: Path, tmp_path: Path, encoder: Encoder, words: WordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = tmp_path / "zoo"
    assert counts(index_places([loras], zoo, encoder)) == (0, 3, 0)
    assert marks(zoo) == {"icon.safetensors": "~mini-b:", "sd1.safetensors": "~sd1:", "x 1.safetensors": "~mini-b:"}
    assert counts(index_places([loras], zoo, encoder, words=words)) == (1, 2, 1)  # a base model is there now
    mark = f"~mini-b:{shipped_base('mini-b').fingerprint[:12]}"
    assert marks(zoo) == {"icon.safetensors": mark, "sd1.safetensors": "~sd1:", "x 1.safetensors": mark}
    again = index_places([loras], zoo, encoder, words=words)
    assert counts(again) == (0, 0, 3)
    assert again.waiting_for_base == {"sd1": 1}
    assert counts(index_places([loras], zoo, encoder)) == (0, 0, 3)  # without base models words stay
    monkeypatch.setattr("loradex.app.bases.bases.shipped_base", changed_base)
    assert counts(index_places([loras], zoo, encoder, words=WordsService(NO_BASES))) == (1, 2, 1)


def changed_base(family: str) -> BaseModel:
    """A base model of the miniature, as if it had changed."""
    return replace(shipped_base(family), fingerprint="0123456789abcdef0123")


def test_without_its_base_model_a_file_that_is_read_again_keeps_its_words(
    loras: Path, tmp_path: Path, encoder: Encoder, words: WordsService, monkeypatch: pytest.MonkeyPatch
) -> None:
    zoo = tmp_path / "zoo"
    index_places([loras], zoo, encoder, words=words)
    before = marks(zoo)
    with Zoo.open(zoo, read_only=True) as opened:
        models, positions = list(opened.models()), opened.positions_by_id([model.id for model in opened.models()])
    (loras / "x 1.safetensors").rename(loras / "y.safetensors")
    (loras / "icon.json").write_text('{"notes": "an icon"}')
    (loras / "icon.safetensors").touch()
    monkeypatch.setattr("loradex.app.bases.bases.shipped_base", missing_base)
    answer = index_places([loras], zoo, encoder, words=WordsService(NO_BASES))
    assert counts(answer) == (1, 2, 1)
    assert answer.waiting_for_base == {"sd1": 1}
    assert marks(zoo)["y.safetensors"] == before["x 1.safetensors"]
    with Zoo.open(zoo, read_only=True) as opened:
        for model in models:
            assert opened.get(model.id).facts.get("words") == model.facts.get("words")
        for id, placed in opened.positions_by_id([model.id for model in models]).items():
            assert placed.keys() == positions[id].keys()
            np.testing.assert_allclose(
                placed[Evidence.WORDS].vector, positions[id][Evidence.WORDS].vector, atol=1e-6
            ) if Evidence.WORDS in placed else None


def missing_base(family: str) -> BaseModel:
    """No base model."""
    raise NoBase(f"base model of {family}: moved or deleted: /models/{family}; `loradex base add NEWPATH`")


def test_a_bad_base_model_is_named_with_the_number_of_files(
    loras: Path, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loradex.app.bases.bases.shipped_base", missing_base)
    answer = index_places([loras], tmp_path / "zoo", encoder, words=WordsService(NO_BASES))
    assert answer.waiting_for_base == {"sd1": 1, "mini-b": 2}
    assert "The words of 2 files are not read: base model of mini-b: moved or deleted: /models/mini-b;" in str(
        answer.words_advice
    )
    assert "1 files were trained with" in str(answer.words_advice)


def test_files_without_cross_attention_wait_for_nothing(
    loras: Path, tmp_path: Path, encoder: Encoder, words: WordsService
) -> None:
    for path in loras.glob("*"):
        path.unlink()
    tensors = {name: tensor for name, tensor in load_file(SHIPPED).items() if "attn2" not in name}
    save_file(tensors, loras / "self-attention.safetensors")
    write_lora(loras / "wan.safetensors", "wan")
    answer = index_places([loras], tmp_path / "zoo", encoder, words=words)
    assert counts(answer) == (0, 2, 0)
    assert answer.words_advice is None
    assert marks(tmp_path / "zoo")["wan.safetensors"] == ""
