"""Calibrated probabilities, with "none of these" among the answers."""

import pytest
import torch
import torch.nn.functional as F

from loradex.retrieval.space.calibration import Background, Calibration, logits, sample_candidates


def test_probabilities_are_a_softmax_with_none_of_these() -> None:
    background = Background(torch.zeros(2), torch.eye(2))
    calibration = Calibration(background, temperature=0.5, unknown=1.0)
    scores = torch.tensor([[1.0, 2.0, 0.0]])
    expected = torch.tensor([[2.0, 4.0, 0.0, 1.0 + torch.tensor(3.0).log()]]).softmax(1)
    torch.testing.assert_close(calibration.probabilities(scores), expected)


def test_a_temperature_and_an_unknown_are_recovered() -> None:
    """Models whose true label is drawn from softmax(score / 0.4) are fitted with about that temperature."""
    torch.manual_seed(0)
    labels = torch.eye(24)
    truth = torch.randint(24, (3000,))
    models = F.normalize(torch.randn(3000, 24) + 2.5 * labels[truth], dim=-1)
    background = Background.fit(F.normalize(torch.randn(3000, 24), dim=-1))
    fitted = Calibration.fit(background, models[:1500], labels, truth[:1500])
    probabilities = fitted.probabilities(fitted.scores(models[1500:], labels))[:, :-1]
    best = probabilities.max(1)
    right = (best.indices == truth[1500:]).float()
    without = fitted.scores(models[1500:], labels).scatter(1, truth[1500:, None], float("-inf"))
    none = fitted.probabilities(without)[:, -1]
    # the fit assumes that one case in five has no true label among the candidates, so confidence is below accuracy
    assert float(right.mean()) - 0.25 < float(best.values.mean()) <= float(right.mean()) + 0.03
    assert float(none.mean()) > 2 * float(fitted.probabilities(fitted.scores(models[1500:], labels))[:, -1].mean())


def test_the_logit_of_none_grows_with_the_list() -> None:
    assert float(logits(torch.zeros(1, 10), 1.0, 2.0)[0, -1]) == pytest.approx(2.0 + 2.302585)


def test_a_sample_of_candidates_has_the_truth_first_and_only_once() -> None:
    scores, truth = torch.arange(40.0).reshape(2, 20), torch.tensor([3, 17])
    table, right = sample_candidates(scores, truth, seed=1)
    assert right.tolist() == [0, 0]
    assert table[:, 0].tolist() == [3.0, 37.0]
    for row, number in zip(table, truth.tolist(), strict=True):
        assert float(scores[truth.tolist().index(number), number]) not in row[1:].tolist()
