"""``python -m scripts.measure_experts``: measures the shipped experts and writes the metrics beside their checkpoints.

The About tab of the page shows them.
"""

from loradex.app.experts.evaluation import evaluate_miniature
from loradex.app.experts.expert_metrics import ExpertMetrics
from loradex.app.paths import MINIATURE

TREES = ("mini-a", "mini-b")
METRICS = (
    "zero_shot_top1_heldout",
    "zero_shot_top5_heldout",
    "zero_shot_top1_all",
    "text_to_model_recall_at_1",
    "text_to_model_recall_at_10",
    "text_to_model_map",
    "in_distribution_top1",
    "answered",
    "right_when_answered",
    "calibration_error",
)


def main() -> None:
    """Measure each expert on the shipped LoRAs, as ``loradex evaluate`` does."""
    for tree in TREES:
        metrics = evaluate_miniature(tree)["metrics"]
        description = (
            "Shipped LoRAs of 165 concepts that no expert saw, 95 % intervals over concepts; "
            "in-distribution: new LoRAs of seen concepts (loradex evaluate)"
        )
        ExpertMetrics(description, {name: metrics[name] for name in METRICS}).save(
            MINIATURE / "encoder" / "experts" / f"{tree}.safetensors"
        )


if __name__ == "__main__":
    main()
