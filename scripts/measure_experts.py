"""``python -m scripts.measure_experts``: what the page's About tab tells of the shipped experts, written beside them."""

from loradex.app.experts.evaluation import evaluate_miniature
from loradex.app.experts.expert_metrics import Measured
from loradex.app.paths import MINIATURE

TREES = ("mini-a", "mini-b")
TOLD = (
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
    """Measure each on the LoRAs that ship, as `loradex evaluate` does."""
    for tree in TREES:
        metrics = evaluate_miniature(tree)["metrics"]
        on = "Shipped LoRAs of 165 concepts that no expert saw, 95 % intervals over concepts; in-distribution: new LoRAs of seen concepts (loradex evaluate)"
        Measured(on, {name: metrics[name] for name in TOLD}).save(
            MINIATURE / "encoder" / "experts" / f"{tree}.safetensors"
        )


if __name__ == "__main__":
    main()
