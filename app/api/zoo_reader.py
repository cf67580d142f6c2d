"""What the API and the agents' tools read of the zoo that is served at the moment."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Final

from loradex.app.api.errors import DrawingMissing
from loradex.app.api.limiter import Turns
from loradex.app.api.requests import Filters, ModelFields, SearchFields
from loradex.app.backend import Desk
from loradex.app.models import described
from loradex.app.paths import SHIPPED_NAME, SHIPPED_ZOO
from loradex.app.previews import drawing_of
from loradex.app.search.answers import SearchAnswer
from loradex.app.search.filters import filter_of
from loradex.app.search.lookalikes import DuplicatesAnswer, Library
from loradex.app.search.query import Query
from loradex.app.search.service import MOST_OFFSET
from loradex.index import Filter, Model
from loradex.index.sqlite.snapshot import State
from loradex.retrieval.errors import QueryError

MOST_COMPARED: Final = 100_000  # models whose fingerprints are held, 4 KiB each


@dataclass(frozen=True, slots=True)
class SearchPage:
    """One page of hits, and the offset of the next."""

    answer: SearchAnswer
    next: int | None


@dataclass(slots=True)
class Compared:
    """The models of one state of a zoo side by side, and what of them is alike once someone asked."""

    of: tuple[Path, State]
    library: Library
    duplicates: DuplicatesAnswer | None = None


class Reader:
    """Questions to the zoo of a desk; heavy ones take turns."""

    def __init__(self, desk: Desk) -> None:
        """Read the zoo that the desk serves when it is asked."""
        self.desk = desk
        self.searching, self.working = (
            Turns(at_once=4, waiting=16, patience=20),
            Turns(at_once=2, waiting=4, patience=60),
        )  # fewer than the pool's 40 threads
        self._comparing = Lock()
        self._compared: Compared | None = None

    def zoo(self) -> dict[str, Any]:
        """What the zoo is and holds."""
        loradex = self.desk.loradex
        name = SHIPPED_NAME if loradex.zoo_folder == SHIPPED_ZOO else loradex.zoo_folder.absolute().name
        counts = {
            plural: loradex.zoo.counts(one)
            for one, plural in (("family", "families"), ("format", "formats"), ("found_by", "found_by"))
        }
        return {
            "name": name,
            "space": loradex.zoo.space,
            "models": len(loradex.zoo),
            **counts,
            "version": version("loradex"),
        }

    def search(self, fields: SearchFields, pictures: Sequence[str] = ()) -> SearchPage:
        """The models that fit a query best, after some others.

        Raises:
            As ``Loradex.search``.
        """
        query, where = Query.of(fields.text, fields.minus, pictures, fields.model), where_of(fields)
        with self.searching:
            answer = self.desk.loradex.search(query, fields.limit + 1, offset=fields.offset, where=where)
        following = fields.offset + fields.limit
        more = len(answer.hits) > fields.limit and following <= MOST_OFFSET
        return SearchPage(replace(answer, hits=answer.hits[: fields.limit]), following if more else None)

    def models(self, fields: ModelFields) -> tuple[list[Model], str | None]:
        """Some models in order of id, and the id after which the next page begins.

        Raises:
            QueryError, BadQuery: the filter cannot be used.
        """
        found = list(islice(self.desk.loradex.zoo.models(where_of(fields), fields.cursor), fields.limit + 1))
        page = found[: fields.limit]
        return page, page[-1].id if len(found) > len(page) else None

    def model(self, id: str) -> dict[str, Any]:
        """All that is known of a model.

        Raises:
            ModelMissing: there is none.
        """
        zoo = self.desk.loradex.zoo
        return described(zoo.get(id), str(zoo.folder)) | {
            "files": [asdict(file) for file in zoo.files_of([id]).get(id, [])]
        }

    def drawing(self, id: str) -> Path:
        """Where a model's drawing lies.

        Raises:
            ModelMissing, DrawingMissing: there is none.
        """
        zoo = self.desk.loradex.zoo
        path = drawing_of(zoo.get(id), zoo.folder)
        if path is None:
            raise DrawingMissing(
                f"model {id!r}: expected a drawing, found none; it had no picture beside it when it was indexed"
            )
        return path

    def similar(self, id: str, limit: int) -> dict[str, Any]:
        """The look-alikes of a model.

        Raises:
            ModelMissing: there is none, or it has no fingerprint.
            QueryError: there are too many models to compare.
        """
        self.desk.loradex.zoo.get(id)
        with self.working:
            with self._comparing:
                library = self._compared_now().library
            entry = library.entry(id)
            hits, merge = library.likes(entry.fingerprint, id, Path(entry.paths[0]).resolve() if entry.paths else None)
            named = library.merge(entry.name, next(iter(entry.paths), None), merge) if merge else None
        compared = {"compared": len(library.entries), "not_compared": len(library.refused)}
        return {
            "id": id,
            "name": entry.name,
            **compared,
            "hits": [asdict(like) for like in hits[:limit]],
            "merge": asdict(named) if named else None,
        }

    def duplicates(self, limit: int) -> dict[str, Any]:
        """Groups of models with one update, related pairs and merges: how many there are, and the first of each.

        Raises:
            QueryError: there are too many models to compare.
        """
        with self.working, self._comparing:
            compared = self._compared_now()
            answer = compared.duplicates = compared.duplicates or compared.library.duplicates()
        lists: dict[str, Sequence[Any]] = {"groups": answer.groups, "related": answer.related, "merges": answer.merges}
        first = replace(answer, **{name: found[:limit] for name, found in lists.items()}, refused={}).document()  # type: ignore[arg-type]
        del first["refused"]
        return first | {
            "not_compared": len(answer.refused),
            "found": {name: len(found) for name, found in lists.items()},
        }

    def run(self) -> dict[str, Any]:
        """How the run of indexing stands."""
        run = self.desk.run
        told = {
            "state": run.state,
            "doing": run.doing,
            "folders": run.folders,
            "done": run.done,
            "total": run.total,
            "file": run.file,
            "reason": run.reason,
        }
        return told | {"answer": run.answer.document() if run.answer else None}

    def _compared_now(self) -> Compared:
        """All models side by side; made anew when the zoo is another or has changed."""
        zoo = self.desk.loradex.zoo
        key = (zoo.folder, zoo.state())
        if self._compared is None or self._compared.of != key:
            if len(zoo) > MOST_COMPARED:
                raise QueryError(
                    f"look-alikes: expected up to {MOST_COMPARED:,} models, found {len(zoo):,}; use `loradex similar`"
                )
            self._compared = Compared(key, Library.of_zoo(zoo.folder, lambda done, total, name: None))
        return self._compared


def where_of(fields: Filters) -> Filter:
    """The filter that was asked for.

    Raises:
        QueryError: a part of it is written in another way.
    """
    return filter_of(**{name: getattr(fields, plain) for name, plain in FILTERS.items()})


FILTERS: Final = {"families": "family", "formats": "format", "tags": "tag"} | {
    name: name for name in ("rank", "folder", "after", "before", "found_by")
}
