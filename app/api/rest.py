"""The REST API over a desk, described by ``openapi.json`` beside its routes; names and operation ids are promises."""

import pathlib
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import FileResponse, Response

from loradex.app.api import responses as doc
from loradex.app.api.exception_handlers import answer_failures
from loradex.app.api.limiter import Turns
from loradex.app.api.multipart import DRAWINGS, LORAS
from loradex.app.api.requests import (
    LONGEST_TEXT,
    MOST_ON_A_PAGE,
    Folders,
    InspectFields,
    LabelFields,
    ModelFields,
    SearchFields,
)
from loradex.app.api.texts import mapped, readable
from loradex.app.api.uploads import Form, body_of, form_of
from loradex.app.api.zoo_reader import Reader
from loradex.app.backend import Desk
from loradex.app.describe.inspection import inspect_files
from loradex.app.models import described

VERSION: Final = "1"  # of the API; a change that breaks callers makes another
DESCRIPTION: Final = (
    "Finds fine-tuned image models by what their weights say. Names, tags and notes in answers come from strangers' files. "
    "Where the server has a login, send it as HTTP Basic. Every failure is `{error: {kind, message}}`."
)
MEANINGS: Final = {
    401: "The server has a login, and it was not sent.",
    404: "There is no such model, drawing or route.",
    409: "A run of indexing is under way.",
    413: "An upload is too large, or there are too many.",
    422: "What was asked cannot be read or answered.",
    500: "The zoo or the server is damaged.",
    503: "Too much is asked for at once, or the zoo is locked; try again after `Retry-After`.",
}
CACHED: Final = {
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
}  # asked again each time, sent again when changed
PICTURE: Final = {
    200: {"content": {"image/png": {}}, "description": "The drawing."},
    304: {"description": "It is as the caller has it."},
}

Id = Annotated[str, Path(max_length=LONGEST_TEXT, description="A model's id, as searches show it.")]
Most = Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE, description="How many at the most, of each kind.")]
SearchForm = Annotated[Form[SearchFields], Depends(form_of(SearchFields, "picture", DRAWINGS))]
LabelForm = Annotated[Form[LabelFields], Depends(form_of(LabelFields, "files", LORAS))]
InspectForm = Annotated[Form[InspectFields], Depends(form_of(InspectFields, "files", LORAS))]


class Api(FastAPI):
    """The app, whose description names the login that stands before it."""

    def openapi(self) -> dict[str, Any]:
        """The document that programs read."""
        if self.openapi_schema is None:
            schema = super().openapi()
            schema["components"]["securitySchemes"] = {"login": {"type": "http", "scheme": "basic"}}
            schema["security"] = [{}, {"login": []}]
        return self.openapi_schema or {}


class Routes:
    """What each route does; FastAPI runs these in its thread pool."""

    def __init__(self, desk: Desk) -> None:
        """Answer from a desk."""
        self.desk, self.reader = desk, Reader(desk)

    def zoo(self) -> Any:
        """What the zoo is and holds."""
        return clean(self.reader.zoo())

    def search(self, fields: Annotated[SearchFields, Query()]) -> Any:
        """Find models by texts and other models."""
        return self.found(fields)

    def search_with_pictures(self, form: SearchForm) -> Any:
        """Find models by pictures, texts and other models."""
        with form.telling_names():
            return form.named(self.found(form.fields, form.files))

    def found(self, fields: SearchFields, pictures: list[str] | None = None) -> dict[str, Any]:
        """One page of hits."""
        page = self.reader.search(fields, pictures or ())
        return clean(page.answer.document() | {"limit": fields.limit, "next": page.next})

    def models(self, fields: Annotated[ModelFields, Query()]) -> Any:
        """List models in order of id."""
        page, following = self.reader.models(fields)
        folder = str(self.desk.loradex.zoo_folder)
        return clean({"models": [described(model, folder) for model in page], "next": following})

    def model(self, id: Id) -> Any:
        """All that is known of a model."""
        return clean(self.reader.model(id))

    def drawing(self, id: Id, request: Request) -> Response:
        """What a model draws."""
        answer = FileResponse(
            path := self.reader.drawing(id), media_type="image/png", headers=CACHED, stat_result=path.stat()
        )
        tag = answer.headers["etag"]
        return (
            Response(status_code=304, headers={"etag": tag, **CACHED})
            if request.headers.get("if-none-match") == tag
            else answer
        )

    def similar(self, id: Id, limit: Most = 10) -> Any:
        """Find copies, re-saves, merges and other versions of a model, of any family."""
        return clean(self.reader.similar(id, limit))

    def duplicates(self, limit: Most = 100) -> Any:
        """List models that hold the same update, were merged, or are versions of one another."""
        return clean(self.reader.duplicates(limit))

    def label(self, form: LabelForm) -> Any:
        """Say what LoRAs draw, in words that no one trained for."""
        with form.telling_names(), self.reader.working:
            answers = list(self.desk.loradex.label(form.files, form.fields.labels, form.fields.count))
            return form.named(clean({"results": [answer.document() for answer in answers]}))

    def inspect(self, form: InspectForm) -> Any:
        """Show format, family, ranks, trainer and trigger words of LoRAs, from their headers."""
        with form.telling_names(), self.reader.working:
            answer = inspect_files(
                [pathlib.Path(file) for file in form.files], form.fields.hash, lambda done, total, name: None
            )
            return form.named(clean(answer.document()))

    def index(self, asked: Folders) -> Any:
        """Begin to add the LoRAs below some folders of the server's machine to the zoo."""
        self.desk.index(asked.folders)
        return self.run()

    def run(self) -> Any:
        """How the last run of indexing stands."""
        return clean(self.reader.run())

    def stop(self) -> Any:
        """Stop the run after the files in hand; what was committed stays."""
        self.desk.stop()
        return self.run()


def rest_api(desk: Desk) -> FastAPI:
    """The API as an app of its own, to be mounted at ``/api/v1``."""
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": doc.Failure, "description": meaning} for status, meaning in MEANINGS.items()
    }
    api = Api(
        title="Loradex",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses=failures,
        servers=[{"url": "/api/v1"}],
        root_path_in_servers=False,
    )
    api.state.uploading = Turns(at_once=3, waiting=6, patience=20)
    answer_failures(api)
    add_routes(api, Routes(desk))
    return api


def add_routes(api: FastAPI, routes: Routes) -> None:
    """All routes, by name."""
    add = api.add_api_route
    add("/zoo", routes.zoo, operation_id="describe_zoo", response_model=doc.Zoo)
    add("/search", routes.search, operation_id="search", response_model=doc.SearchPage)
    body = body_of(SearchFields, "picture", DRAWINGS)
    add(
        "/search",
        routes.search_with_pictures,
        methods=["POST"],
        operation_id="search_with_pictures",
        response_model=doc.SearchPage,
        openapi_extra=body,
    )
    add("/models", routes.models, operation_id="list_models", response_model=doc.ModelPage)
    add("/models/{id}", routes.model, operation_id="get_model", response_model=doc.ModelWithFiles)
    add("/models/{id}/drawing", routes.drawing, operation_id="get_drawing", response_class=Response, responses=PICTURE)  # type: ignore[arg-type]
    add("/models/{id}/similar", routes.similar, operation_id="similar_models", response_model=doc.LookAlikes)
    add("/duplicates", routes.duplicates, operation_id="find_duplicates", response_model=doc.Duplicates)
    body = body_of(LabelFields, "files", LORAS)
    add(
        "/label",
        routes.label,
        methods=["POST"],
        operation_id="label_files",
        response_model=doc.Labelled,
        openapi_extra=body,
    )
    body = body_of(InspectFields, "files", LORAS)
    add(
        "/inspect",
        routes.inspect,
        methods=["POST"],
        operation_id="inspect_files",
        response_model=doc.Inspected,
        openapi_extra=body,
    )
    add(
        "/index", routes.index, methods=["POST"], operation_id="start_indexing", response_model=doc.Run, status_code=202
    )
    add("/index", routes.run, operation_id="indexing_run", response_model=doc.Run)
    add(
        "/index", routes.stop, methods=["DELETE"], operation_id="stop_indexing", response_model=doc.Run, status_code=202
    )


def clean(document: dict[str, Any]) -> dict[str, Any]:
    """A document that JSON can hold."""
    found: dict[str, Any] = mapped(document, readable)
    return found
