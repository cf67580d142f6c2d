"""Spaces, labels and checkpoints: values, round trips, and damaged files."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from loradex.retrieval.errors import CheckpointError
from loradex.retrieval.probex.batched_factors import Factors
from loradex.retrieval.probex.expert import Expert
from loradex.retrieval.probex.familiarity import Familiarity
from loradex.retrieval.probex.probes import ALL_VIEWS, ProbeConfig, ProbeNet
from loradex.retrieval.probex.sketch import SketchConfig, SketchRegression
from loradex.retrieval.space.calibration import Background, Calibration
from loradex.retrieval.space.embedding_space import Space
from loradex.retrieval.space.labels import LabelList


def some_space(seed: int = 0) -> Space:
    torch.manual_seed(seed)
    return Space("local-dir:clip", ("{}", "an icon of a {}"), torch.randn(8) / 10, torch.randn(8) / 10)


def some_calibration() -> Calibration:
    torch.manual_seed(2)
    return Calibration(
        Background.fit(F.normalize(torch.randn(40, 8), dim=-1).half().float()), temperature=0.1, unknown=0.2
    )


def some_expert(space: Space, learned: bool = False) -> Expert:
    torch.manual_seed(1)
    models = {"layer": Factors(torch.randn(6, 2, 12), torch.randn(6, 10, 2))}
    if learned:
        config = ProbeConfig(("layer",), ALL_VIEWS, 5, 4, 8, standardise=True, text_projection=False)
        model: SketchRegression | ProbeNet = ProbeNet({"layer": (10, 12)}, 8, config).eval()
    else:
        model = SketchRegression.fit(models, torch.randn(6, 8), torch.arange(6), SketchConfig(("layer",), 4, 4))
    return Expert(
        "mini-x", "mini-a", space.name, {"layer": (10, 12)}, model, some_calibration(), Familiarity.fit(models)
    )


def test_a_space_survives_its_file(tmp_path: Path) -> None:
    space = some_space()
    space.save(tmp_path / "space.safetensors")
    again = Space.load(tmp_path / "space.safetensors")
    assert again.name == space.name
    assert torch.equal(again.centre, space.centre)
    assert torch.equal(again.picture_centre, space.picture_centre)
    assert again.templates == space.templates


def test_spaces_with_other_centres_have_other_names() -> None:
    assert some_space(0).name != some_space(1).name
    assert some_space().name == some_space().name


def test_texts_and_pictures_are_centred_by_their_own_means() -> None:
    space, vectors = some_space(), F.normalize(torch.randn(5, 8), dim=-1)
    expected = (vectors - space.centre) / (vectors - space.centre).norm(dim=1, keepdim=True)
    torch.testing.assert_close(space.centre_texts(vectors), expected)
    torch.testing.assert_close(space.centre_pictures(vectors), F.normalize(vectors - space.picture_centre, dim=-1))


def test_scores_are_standardised_against_the_training_models() -> None:
    torch.manual_seed(0)
    models, labels = (
        F.normalize(torch.randn(500, 8) + torch.arange(8) / 4, dim=-1),
        F.normalize(torch.randn(5, 8), dim=-1),
    )
    scores = Background.fit(models).z_scores(models, labels)
    cosines = models @ labels.T
    torch.testing.assert_close(scores, (cosines - cosines.mean(0)) / cosines.std(0), atol=1e-4, rtol=1e-4)


def test_a_label_near_every_model_is_not_the_best_of_all() -> None:
    models = F.normalize(torch.eye(3) + torch.tensor([0.0, 0.0, 2.0]), dim=-1)
    labels = torch.eye(3)
    assert (models @ labels.T).argmax(1).tolist() == [2, 2, 2]
    assert Background.fit(models).z_scores(models, labels).argmax(1).tolist() == [0, 1, 2]


def test_labels_are_ranked_by_score_with_a_softmax_at_the_temperature(tmp_path: Path) -> None:
    calibration, vectors = (
        some_calibration(),
        F.normalize(torch.randn(6, 8), dim=-1).half().float(),
    )  # as they are saved
    labels = LabelList(tuple("abcdef"), vectors)
    labels.save(tmp_path / "labels.safetensors")
    best = LabelList.load(tmp_path / "labels.safetensors").best(calibration, vectors[2], 3)
    scores = calibration.background.z_scores(vectors[2:3], vectors)[0]
    assert best[0].label == "c"
    assert best[0].score == pytest.approx(float(scores.max()))
    weights = torch.cat([scores / 0.1, torch.tensor([0.2 + np.log(6)])]).exp().float()
    assert best[1].probability == pytest.approx(
        float((weights[:-1] / weights.sum()).sort(descending=True).values[1]), rel=1e-4, abs=1e-12
    )
    assert len(LabelList(("x",), vectors[:1]).best(calibration, vectors[0], 5)) == 1


@pytest.mark.parametrize("learned", [False, True])
def test_an_expert_survives_its_file(tmp_path: Path, learned: bool) -> None:
    expert = some_expert(some_space(), learned)
    expert.save(tmp_path / "mini-a.safetensors")
    again = Expert.load(tmp_path / "mini-a.safetensors")
    assert (again.tree, again.family, again.space, again.shapes, again.layers) == (
        "mini-x",
        "mini-a",
        expert.space,
        expert.shapes,
        expert.layers,
    )
    assert (again.calibration.temperature, again.calibration.unknown) == (0.1, 0.2)
    torch.testing.assert_close(
        again.calibration.background.covariance, expert.calibration.background.covariance, atol=1e-3, rtol=1e-2
    )
    torch.manual_seed(3)
    models = {"layer": Factors(torch.randn(4, 3, 12), torch.randn(4, 10, 3))}
    assert (expert.encode_factors(models) * again.encode_factors(models)).sum(1).min() > 0.9999


@pytest.mark.parametrize("load", [Space.load, Expert.load, LabelList.load])
def test_files_that_are_no_checkpoints_are_refused_in_one_line(tmp_path: Path, load: object) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors", metadata={"format": "something-9"})
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken}")
    for name in ("other.safetensors", "broken.safetensors", "absent.safetensors"):
        with pytest.raises(CheckpointError, match=name) as caught:
            load(tmp_path / name)  # type: ignore[operator]
        assert "\n" not in str(caught.value)
