"""``loradex categories``: which categories whole models were trained on, by their weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from loradex.retrieval.encoder import Encoder
from loradex.retrieval.errors import FileError, NoExpert
from loradex.retrieval.lora import WeightsFile
from loradex.retrieval.probex.category_expert import CategoryExpert

LIKELY = 0.5
SURE = 0.95


@dataclass(frozen=True, slots=True)
class CategoriesAnswer:
    """The categories of one file, the likeliest first; ``reason`` says why it could not be read."""

    file: str
    tree: str
    categories: list[tuple[str, float]]
    reason: str | None = None

    @property
    def likely(self) -> list[tuple[str, float]]:
        """Those that are more likely than not."""
        return likely_of(self.categories)

    @property
    def line(self) -> str:
        """Those, with the probability of what is not sure."""
        return ", ".join(
            name if probability >= SURE else f"{name} {probability:.0%}" for name, probability in self.likely
        )

    def document(self) -> dict[str, object]:
        """One result of ``loradex categories --json``."""
        categories = [{"category": name, "probability": round(probability, 6)} for name, probability in self.categories]
        return {"file": self.file, "tree": self.tree, "reason": self.reason, "categories": categories}


def categories_of(encoder: Encoder, model: WeightsFile) -> tuple[str, list[tuple[str, float]]]:
    """A model's tree, and its categories with their probabilities, the likeliest first.

    Raises:
        NoExpert: no expert tells the categories of its tree.
        FileCorrupt: its weights cannot be used.
    """
    expert, layers = encoder.router.route(model)
    if not isinstance(expert, CategoryExpert):
        raise NoExpert(
            f"{model.path}: expected a model that tells categories apart, found one of {expert.tree}, which draws; ask `loradex label`"
        )
    found = expert.probabilities(layers)[0].tolist()
    return expert.tree, likely_first(expert.categories, found)


def likely_first(names: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    """Categories with their probabilities, the likeliest first."""
    return sorted(zip(names, probabilities, strict=True), key=lambda pair: -pair[1])


def likely_of(categories: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Those categories that are more likely than not."""
    return [(name, probability) for name, probability in categories if probability > LIKELY]


def tell_categories(encoder: Encoder, files: Sequence[str]) -> Iterator[CategoriesAnswer]:
    """The categories of files, one after another; a file that cannot be read is answered with the reason."""
    for file in files:
        try:
            yield CategoriesAnswer(file, *categories_of(encoder, encoder.router.open(file)))
        except (FileError, NoExpert) as error:
            yield CategoriesAnswer(file, "unknown", [], str(error))
