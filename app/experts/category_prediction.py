"""``loradex categories``: predicts which categories full models were trained on, by their weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileError, NoExpert, NoExpertReason
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.category_expert import CategoryExpert

LIKELY_PROBABILITY = 0.5  # a category above it counts as predicted
SURE_PROBABILITY = 0.95  # from here on a category is shown without its probability


@dataclass(frozen=True, slots=True)
class CategoriesAnswer:
    """The categories of one file with their probabilities, the most probable first.

    Attributes:
        reason: why the file could not be read; None if it was.
    """

    file: str
    tree: str
    categories: list[tuple[str, float]]
    reason: str | None = None

    @property
    def likely(self) -> list[tuple[str, float]]:
        """The categories that are more likely than not."""
        return likely_categories(self.categories)

    @property
    def line(self) -> str:
        """The likely categories in one line, with the probabilities of those that are not sure."""
        return ", ".join(
            name if probability >= SURE_PROBABILITY else f"{name} {probability:.0%}"
            for name, probability in self.likely
        )

    def document(self) -> dict[str, object]:
        """One result of ``loradex categories --json``."""
        categories = [{"category": name, "probability": round(probability, 6)} for name, probability in self.categories]
        return {"file": self.file, "tree": self.tree, "reason": self.reason, "categories": categories}


def predict_categories(encoder: Encoder, files: Sequence[str]) -> Iterator[CategoriesAnswer]:
    """Predict the categories of files; yields an answer for each, with the reason if the file cannot be read."""
    for file in files:
        try:
            yield CategoriesAnswer(file, *predict_file(encoder, encoder.router.open(file)))
        except (FileError, NoExpert) as error:
            yield CategoriesAnswer(file, "unknown", [], str(error))


def predict_file(encoder: Encoder, model: WeightsFile) -> tuple[str, list[tuple[str, float]]]:
    """Predict the categories of one model.

    Returns:
        Its model tree, and all categories with their probabilities, the most probable first.

    Raises:
        NoExpert: no expert predicts categories of its model tree.
        FileCorrupt: its weights cannot be used.
    """
    expert, layers = encoder.router.route(model)
    if not isinstance(expert, CategoryExpert):
        raise NoExpert(
            f"{model.path}: expected a model that classifies pictures, found one of {expert.tree}, which draws; ask `loradex label`",
            NoExpertReason.KIND,
        )
    return expert.tree, ranked_by_probability(expert.categories, expert.probabilities(layers)[0].tolist())


def ranked_by_probability(names: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    """Pair names with their probabilities, the most probable first."""
    return sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])


def likely_categories(categories: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The categories that are more likely than not."""
    return [(name, probability) for name, probability in categories if probability > LIKELY_PROBABILITY]
