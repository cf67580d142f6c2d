"""Queries of the REST API and the agent tools to the served zoo."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any, Final

from loradex.app.api.errors import Busy, DrawingMissing
from loradex.app.api.limiter import RequestLimiter
from loradex.app.api.requests import Filters, ModelFields, SearchFields
from loradex.app.backend import Backend
from loradex.app.models import model_document, words_document
from loradex.app.paths import SHIPPED_NAME, SHIPPED_ZOO
from loradex.app.previews import preview_path
from loradex.app.search.answers import SearchAnswer
from loradex.app.search.filters import parse_filter
from loradex.app.search.lookalikes import DuplicatesAnswer, Library
from loradex.app.search.query import Query
from loradex.app.search.service import MAX_OFFSET
from loradex.app.words import FileWords
from loradex.index import Filter, Model
from loradex.index.model import State
from loradex.retrieval.errors import QueryError

MAX_PREPARING: Final = 60.0  # seconds for which a request waits for a base model; the client's timeout is twice as long
MAX_COMPARED: Final = 100_000  # models; a fingerprint takes 4 KiB of memory
FILTERS: Final = {"families": "family", "formats": "format", "tags": "tag"} | {
    name: name for name in ("rank", "folder", "after", "before", "found_by")
}  # field of a request by parameter of ``parse_filter``


@dataclass(frozen=True, slots=True)
class HitPage:
    """A page of hits; ``next`` is the offset of the next page, None on the last."""

    answer: SearchAnswer
    next: int | None


@dataclass(slots=True)
class Comparison:
    """The models of a zoo, loaded for comparison, and the duplicates among them once they were asked for.

    Attributes:
        key: folder and state of the zoo that was loaded.
    """

    key: tuple[Path, State]
    library: Library
    duplicates: DuplicatesAnswer | None = None


class ZooReader:
    """Answers queries to the zoo that the backend serves at the moment; limits how many heavy ones run at a time."""

    def __init__(self, backend: Backend) -> None:
        """Create a reader; nothing is loaded yet."""
        self.backend = backend
        # Together they hold fewer threads than the 40 of the server's pool, so that light requests always get one.
        self.search_limiter = RequestLimiter(running=4, waiting=16, timeout=20)
        self.heavy_limiter = RequestLimiter(running=2, waiting=4, timeout=60)
        self._comparison_lock = Lock()
        self._comparison: Comparison | None = None

    def zoo(self) -> dict[str, Any]:
        """Describe the zoo: its name, space, and number of models by family, format, evidence and lack of an expert."""
        loradex = self.backend.loradex
        name = SHIPPED_NAME if loradex.zoo_folder == SHIPPED_ZOO else loradex.zoo_folder.absolute().name
        counts = {
            field: loradex.zoo.counts(column)
            for field, column in (("families", "family"), ("formats", "format"), ("found_by", "found_by"))
        }
        return {
            "name": name,
            "space": loradex.zoo.space,
            "models": len(loradex.zoo),
            **counts,
            "waiting_for_expert": {each.family: each.count for each in self.backend.waiting()},
            "version": version("loradex"),
        }

    def search(self, fields: SearchFields, pictures: Sequence[str] = ()) -> HitPage:
        """Return one page of hits; raises what ``Loradex.search`` raises."""
        query, where = Query.from_parts(fields.text, fields.minus, pictures, fields.model), filter_from(fields)
        with self.search_limiter:
            answer = self.backend.loradex.search(query, fields.limit + 1, offset=fields.offset, where=where)
        next_offset = fields.offset + fields.limit
        more = len(answer.hits) > fields.limit and next_offset <= MAX_OFFSET
        return HitPage(replace(answer, hits=answer.hits[: fields.limit]), next_offset if more else None)

    def models(self, fields: ModelFields) -> tuple[list[Model], str | None]:
        """Return a page of models in order of id, and the cursor of the next page (None on the last).

        Raises:
            QueryError, BadQuery: the filter cannot be used.
        """
        models = list(islice(self.backend.loradex.zoo.models(filter_from(fields), fields.cursor), fields.limit + 1))
        page = models[: fields.limit]
        return page, page[-1].id if len(models) > len(page) else None

    def model(self, id: str) -> dict[str, Any]:
        """Return all that is known about a model, with its files.

        Raises:
            ModelMissing: there is none.
        """
        zoo = self.backend.loradex.zoo
        return described(zoo.get(id), str(zoo.folder)) | {
            "files": [asdict(file) for file in zoo.files_by_model([id]).get(id, [])]
        }

    def drawing_path(self, id: str) -> Path:
        """Return the path of a model's preview.

        Raises:
            ModelMissing: there is no such model.
            DrawingMissing: it has no preview.
        """
        zoo = self.backend.loradex.zoo
        path = preview_path(zoo.get(id), zoo.folder)
        if path is None:
            raise DrawingMissing(
                f"model {id!r}: expected a drawing, found none; it had no picture beside it when it was indexed"
            )
        return path

    def words(self, files: Sequence[str], count: int, words: Sequence[str] = ()) -> list[FileWords]:
        """Read the words that files were trained with.

        Args:
            files: paths of LoRA files.
            count: the number of words of each.
            words: to choose from; none for the usual ones.

        Raises:
            QueryError: the words to choose from cannot be used.
            Busy, TooManyRuns: a base model is still being prepared, or too many requests wait.
        """
        with self.heavy_limiter:
            run, start = self.backend.read_words(files, count, words), monotonic()
            while not run.ended.wait(1):
                if (preparing := self.backend.preparing) and monotonic() > start + MAX_PREPARING:
                    run.stop.set()
                    done, total = preparing
                    raise Busy(
                        f"words: expected a base model that is prepared for reading them, found {done:,} of {total:,} texts encoded; try again later"
                    )
        if run.error:
            raise run.error
        return run.results

    def similar(self, id: str, limit: int) -> dict[str, Any]:
        """Find the look-alikes of a model.

        Raises:
            ModelMissing: there is no such model, or it has no fingerprint.
            QueryError: there are too many models to compare.
        """
        self.backend.loradex.zoo.get(id)
        with self.heavy_limiter:
            with self._comparison_lock:
                library = self._load_comparison().library
            entry = library.entry(id)
            hits, merge = library.find_lookalikes(
                entry.fingerprint, id, Path(entry.paths[0]).resolve() if entry.paths else None
            )
            merge_answer = library.merge_answer(entry.name, next(iter(entry.paths), None), merge) if merge else None
        compared = {"compared": len(library.entries), "not_compared": len(library.refused)}
        return {
            "id": id,
            "name": entry.name,
            **compared,
            "hits": [asdict(like) for like in hits[:limit]],
            "merge": asdict(merge_answer) if merge_answer else None,
        }

    def duplicates(self, limit: int) -> dict[str, Any]:
        """Count the groups of models with the same update, related pairs and merges, and return the first of each.

        Raises:
            QueryError: there are too many models to compare.
        """
        with self.heavy_limiter, self._comparison_lock:
            comparison = self._load_comparison()
            answer = comparison.duplicates = comparison.duplicates or comparison.library.duplicates()
        page = replace(
            answer,
            groups=answer.groups[:limit],
            related=answer.related[:limit],
            merges=answer.merges[:limit],
            refused={},
        )
        document = page.document()
        del document["refused"]
        counts = {"groups": len(answer.groups), "related": len(answer.related), "merges": len(answer.merges)}
        return document | {"not_compared": len(answer.refused), "found": counts}

    def indexing_run(self) -> dict[str, Any]:
        """Return the state of the current or last indexing run."""
        run = self.backend.indexing_run
        document = {
            "state": run.state,
            "doing": run.doing,
            "folders": run.folders,
            "done": run.done,
            "total": run.total,
            "file": run.file,
            "reason": run.reason,
        }
        return document | {"answer": run.answer.document() if run.answer else None}

    def _load_comparison(self) -> Comparison:
        """Return the models of the zoo, loaded again if they have changed; call it with the lock held."""
        zoo = self.backend.loradex.zoo
        key = (zoo.folder, zoo.state())
        if self._comparison is None or self._comparison.key != key:
            if len(zoo) > MAX_COMPARED:
                raise QueryError(
                    f"look-alikes: expected up to {MAX_COMPARED:,} models, found {len(zoo):,}; use `loradex similar`"
                )
            self._comparison = Comparison(key, Library.from_zoo(zoo.folder, lambda done, total, name: None))
        return self._comparison


def described(model: Model, zoo: str) -> dict[str, Any]:
    """Return all that is known about a model but its files; ``zoo`` is the folder of its zoo."""
    return model_document(model, zoo) | {"words": words_document(model)}


def filter_from(fields: Filters) -> Filter:
    """Return the filter of a request.

    Raises:
        QueryError: a field cannot be parsed.
    """
    return parse_filter(**{name: getattr(fields, field) for name, field in FILTERS.items()})
