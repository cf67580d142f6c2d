"""``python -m scripts.measure_experts``: measures the shipped experts and writes the metrics beside their checkpoints.

The About tab of the page shows them.
"""

from loradex.app.experts.evaluation import evaluate_miniature
from loradex.app.experts.expert_metrics import NOTED_METRICS, ExpertMetrics
from loradex.app.paths import MINIATURE

TREES = ("mini-a", "mini-b")


def main() -> None:
    """Measure each expert on the shipped LoRAs, as ``loradex evaluate`` does."""
    for tree in TREES:
        metrics = evaluate_miniature(tree)["metrics"]
        description = (
            "Shipped LoRAs of 165 concepts that no expert saw, 95 % intervals over concepts; "
            "in-distribution: new LoRAs of seen concepts (loradex evaluate)"
        )
        ExpertMetrics(description, {name: metrics[name] for name in NOTED_METRICS}).save(
            MINIATURE / "encoder" / "experts" / f"{tree}.safetensors"
        )


if __name__ == "__main__":
    main()
