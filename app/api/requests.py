"""What the API is asked; every name here is a promise (docs/openapi.json)."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from loradex.app.backend import LONGEST_PATH
from loradex.app.search.query import MOST_PARTS
from loradex.app.search.service import MOST_HITS, MOST_LABELS, MOST_OFFSET
from loradex.index import FoundBy
from loradex.index.filters import MOST_VALUES

LONGEST_TEXT: Final = 300  # characters
MOST_ON_A_PAGE: Final = 500
MOST_FOLDERS: Final = 100

Short = Annotated[str, Field(max_length=LONGEST_TEXT)]


class Asked(BaseModel):
    """What a caller sends; a name that is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class Filters(Asked):
    """Which models may be answers; what is left out asks for nothing."""

    family: list[Short] = Field([], max_length=MOST_VALUES, description="Only models of one of these families.")
    format: list[Short] = Field([], max_length=MOST_VALUES, description="Only files of one of these formats.")
    tag: list[Short] = Field(
        [], max_length=MOST_VALUES, description="Only models with all of these tags or trigger words."
    )
    rank: Short | None = Field(None, description="Only models of this rank, or range of ranks.", examples=["4-16"])
    folder: str | None = Field(
        None, max_length=LONGEST_PATH, description="Only models with a file below this folder of the server's machine."
    )
    after: Short | None = Field(
        None, description="Only models added since then (UTC), or since 7d, 12h, 2w ago.", examples=["2026-11-24"]
    )
    before: Short | None = Field(None, description="Only models added before then.")
    found_by: FoundBy | None = Field(None, description="Only models that are known by weights, or by metadata alone.")


class SearchFields(Filters):
    """A query: its parts are added up, each may end in a weight as dog^0.5."""

    text: list[Short] = Field(
        [], max_length=MOST_PARTS, description="What the model should draw.", examples=[["a slice of pizza"]]
    )
    minus: list[Short] = Field([], max_length=MOST_PARTS, description="What it should not draw.")
    model: list[Short] = Field([], max_length=MOST_PARTS, description="Ids of models that it should be like.")
    limit: int = Field(10, ge=1, le=MOST_HITS - 1, description="How many hits.")
    offset: int = Field(0, ge=0, le=MOST_OFFSET, description="How many of the first hits to leave out.")


class ModelFields(Filters):
    """A page of models in order of id."""

    limit: int = Field(50, ge=1, le=MOST_ON_A_PAGE, description="How many models.")
    cursor: Short = Field(
        "", description="The `next` of the page before, so that none is left out or told twice while others are added."
    )


class LabelFields(Asked):
    """How files are labelled."""

    labels: list[Short] = Field(
        [], max_length=MOST_LABELS, description="The labels to choose from; none: the concepts that ship."
    )
    count: int = Field(5, ge=1, le=MOST_HITS, description="How many labels a file.")


class InspectFields(Asked):
    """How files are inspected."""

    hash: bool = Field(False, description="Whether to read the files whole, for their hashes.")


class Folders(Asked):
    """Where LoRAs lie that should be added to the zoo."""

    folders: list[Annotated[str, Field(max_length=LONGEST_PATH)]] = Field(
        min_length=1,
        max_length=MOST_FOLDERS,
        description="Full paths of folders of the server's machine.",
        examples=[["/srv/ComfyUI/models/loras"]],
    )
