"""The REST API, described by its ``openapi.json``; routes, operation ids and all names in documents are public."""

import pathlib
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.responses import FileResponse, Response

from loradex.app.api import responses
from loradex.app.api.exception_handlers import add_exception_handlers
from loradex.app.api.limiter import RequestLimiter
from loradex.app.api.multipart import LORA_UPLOADS, PICTURE_UPLOADS
from loradex.app.api.requests import (
    MAX_PAGE_SIZE,
    MAX_TEXT_LENGTH,
    BaseHeader,
    Folders,
    InspectFields,
    LabelFields,
    ModelFields,
    SearchFields,
    WordsFields,
)
from loradex.app.api.texts import map_strings
from loradex.app.api.uploads import Form, form_dependency, request_body
from loradex.app.api.zoo_reader import ZooReader, described
from loradex.app.backend import Backend
from loradex.app.describe.inspection import inspect_files
from loradex.app.reporting import readable
from loradex.retrieval.base_model import family_of_tensors

VERSION: Final = "1"  # of the API; increase it with a change that breaks clients
DESCRIPTION: Final = (
    "Finds fine-tuned image models by what their weights say. Names, tags and notes in responses come from files written by strangers. "
    "If the server has a login, send it as HTTP Basic. Every error is `{error: {kind, message}}`."
)
ERROR_DESCRIPTIONS: Final = {
    401: "The server has a login, and it was not sent.",
    404: "There is no such model, drawing or route.",
    409: "An indexing run is already in progress.",
    413: "An upload is too large, or there are too many.",
    422: "The request, or a file in it, is invalid.",
    500: "The zoo or the server is damaged.",
    503: "Too many requests at a time, or the zoo is locked; try again after `Retry-After`.",
}
CACHE_HEADERS: Final = {  # clients ask each time, and get a drawing again only if it has changed
    "Cache-Control": "private, no-cache",
    "X-Content-Type-Options": "nosniff",
}
DRAWING_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"image/png": {}}, "description": "The drawing."},
    304: {"description": "The drawing has not changed."},
}

Id = Annotated[str, Path(max_length=MAX_TEXT_LENGTH, description="Id of a model, as returned by a search.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Maximum number of results, of each kind.")]
SearchForm = Annotated[Form[SearchFields], Depends(form_dependency(SearchFields, "picture", PICTURE_UPLOADS))]
LabelForm = Annotated[Form[LabelFields], Depends(form_dependency(LabelFields, "files", LORA_UPLOADS))]
WordsForm = Annotated[Form[WordsFields], Depends(form_dependency(WordsFields, "files", LORA_UPLOADS))]
InspectForm = Annotated[Form[InspectFields], Depends(form_dependency(InspectFields, "files", LORA_UPLOADS))]


class Api(FastAPI):
    """The app; its openapi.json mentions the login, which the server's gate checks."""

    def openapi(self) -> dict[str, Any]:
        """Return openapi.json."""
        if self.openapi_schema is None:
            schema = super().openapi()
            schema["components"]["securitySchemes"] = {"login": {"type": "http", "scheme": "basic"}}
            schema["security"] = [{}, {"login": []}]
        return self.openapi_schema or {}


class Routes:
    """The routes, one method each. FastAPI calls them in its thread pool; openapi.json shows their docstrings."""

    def __init__(self, backend: Backend) -> None:
        """Serve the zoo of a backend."""
        self.backend, self.reader = backend, ZooReader(backend)

    def zoo(self) -> Any:
        """Describe the zoo: its name, space, and number of models by family, format and evidence."""
        return json_safe(self.reader.zoo())

    def search(self, fields: Annotated[SearchFields, Query()]) -> Any:
        """Find models by texts and other models."""
        return self.hit_page(fields)

    def search_with_pictures(self, form: SearchForm) -> Any:
        """Find models by pictures, texts and other models."""
        with form.restore_names_in_errors():
            return form.restore_names(self.hit_page(form.fields, form.files))

    def hit_page(self, fields: SearchFields, pictures: list[str] | None = None) -> dict[str, Any]:
        """Return a page of hits."""
        page = self.reader.search(fields, pictures or ())
        return json_safe(page.answer.document() | {"limit": fields.limit, "next": page.next})

    def models(self, fields: Annotated[ModelFields, Query()]) -> Any:
        """List models in order of id."""
        page, next_cursor = self.reader.models(fields)
        folder = str(self.backend.loradex.zoo_folder)
        return json_safe({"models": [described(model, folder) for model in page], "next": next_cursor})

    def model(self, id: Id) -> Any:
        """Get all that is known about a model, with its files."""
        return json_safe(self.reader.model(id))

    def drawing(self, id: Id, request: Request) -> Response:
        """Get the preview of a model, as PNG."""
        path = self.reader.drawing_path(id)
        response = FileResponse(path, media_type="image/png", headers=CACHE_HEADERS, stat_result=path.stat())
        etag = response.headers["etag"]
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag, **CACHE_HEADERS})
        return response

    def similar(self, id: Id, limit: Limit = 10) -> Any:
        """Find the look-alikes of a model: copies, re-saves, merges and other versions."""
        return json_safe(self.reader.similar(id, limit))

    def duplicates(self, limit: Limit = 100) -> Any:
        """Find all look-alikes in the zoo: models with the same or a related update, and merges."""
        return json_safe(self.reader.duplicates(limit))

    def label(self, form: LabelForm) -> Any:
        """Label what LoRAs draw (zero-shot)."""
        with form.restore_names_in_errors(), self.reader.heavy_limiter:
            answers = list(self.backend.loradex.label(form.files, form.fields.labels, form.fields.count))
            return form.restore_names(json_safe({"results": [answer.document() for answer in answers]}))

    def words(self, form: WordsForm) -> Any:
        """Read the words that LoRAs were trained with from their weights; 503 while the base model is prepared."""
        with form.restore_names_in_errors():
            results = self.reader.words(form.files, form.fields.count, form.fields.words)
            return form.restore_names(json_safe({"results": [result.as_json() for result in results]}))

    def inspect(self, form: InspectForm) -> Any:
        """Read format, family, ranks, trainer and trigger words from the headers of LoRAs."""
        with form.restore_names_in_errors(), self.reader.heavy_limiter:
            answer = inspect_files(
                [pathlib.Path(file) for file in form.files], form.fields.hash, lambda done, total, name: None
            )
            return form.restore_names(json_safe(answer.document()))

    def family(self, body: BaseHeader) -> Any:
        """Tell the family of a base model by its tensors, for searches of LoRAs that fit it."""
        with self.reader.heavy_limiter:
            return json_safe({"family": family_of_tensors(body.tensors)})

    def index(self, body: Folders) -> Any:
        """Start to index the LoRAs below folders of the server's machine."""
        self.backend.start_indexing(body.folders)
        return self.run()

    def run(self) -> Any:
        """Get the state of the current or last indexing run."""
        return json_safe(self.reader.indexing_run())

    def stop(self) -> Any:
        """Stop the indexing run after the current files; what was committed stays."""
        self.backend.stop_indexing()
        return self.run()


def rest_api(backend: Backend) -> FastAPI:
    """Return the API as an app, to be mounted at ``/api/v1``."""
    error_responses: dict[int | str, dict[str, Any]] = {
        status: {"model": responses.Failure, "description": description}
        for status, description in ERROR_DESCRIPTIONS.items()
    }
    api = Api(
        title="Loradex",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        responses=error_responses,
        servers=[{"url": "/api/v1"}],
        root_path_in_servers=False,
    )
    api.state.upload_limiter = RequestLimiter(running=3, waiting=6, timeout=20)
    add_exception_handlers(api)
    add_routes(api, Routes(backend))
    return api


def add_routes(api: FastAPI, routes: Routes) -> None:
    """Add all routes."""
    add = api.add_api_route
    add("/zoo", routes.zoo, operation_id="describe_zoo", response_model=responses.Zoo)
    add("/search", routes.search, operation_id="search", response_model=responses.SearchPage)
    body = request_body(SearchFields, "picture", PICTURE_UPLOADS)
    add(
        "/search",
        routes.search_with_pictures,
        methods=["POST"],
        operation_id="search_with_pictures",
        response_model=responses.SearchPage,
        openapi_extra=body,
    )
    add("/models", routes.models, operation_id="list_models", response_model=responses.ModelPage)
    add("/models/{id}", routes.model, operation_id="get_model", response_model=responses.ModelWithFiles)
    add(
        "/models/{id}/drawing",
        routes.drawing,
        operation_id="get_drawing",
        response_class=Response,
        responses=DRAWING_RESPONSES,
    )
    add("/models/{id}/similar", routes.similar, operation_id="similar_models", response_model=responses.LookAlikes)
    add("/duplicates", routes.duplicates, operation_id="find_duplicates", response_model=responses.Duplicates)
    body = request_body(LabelFields, "files", LORA_UPLOADS)
    add(
        "/label",
        routes.label,
        methods=["POST"],
        operation_id="label_files",
        response_model=responses.Labelled,
        openapi_extra=body,
    )
    body = request_body(WordsFields, "files", LORA_UPLOADS)
    add(
        "/words",
        routes.words,
        methods=["POST"],
        operation_id="read_words",
        response_model=responses.WordsRead,
        openapi_extra=body,
    )
    body = request_body(InspectFields, "files", LORA_UPLOADS)
    add(
        "/inspect",
        routes.inspect,
        methods=["POST"],
        operation_id="inspect_files",
        response_model=responses.Inspected,
        openapi_extra=body,
    )
    add(
        "/family",
        routes.family,
        methods=["POST"],
        operation_id="tell_family",
        response_model=responses.BaseFamily,
    )
    add(
        "/index",
        routes.index,
        methods=["POST"],
        operation_id="start_indexing",
        response_model=responses.Run,
        status_code=202,
    )
    add("/index", routes.run, operation_id="indexing_run", response_model=responses.Run)
    add(
        "/index",
        routes.stop,
        methods=["DELETE"],
        operation_id="stop_indexing",
        response_model=responses.Run,
        status_code=202,
    )


def json_safe(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document whose texts are valid UTF-8, as JSON requires."""
    safe: dict[str, Any] = map_strings(document, readable)
    return safe
