"""Exception handlers: every error of the API has one JSON shape, with a status that fits it."""

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from loradex.app.api.errors import RETRY_AFTER, disk_error, status_of
from loradex.app.api.texts import bounded_line
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError

MAX_FAULTS: Final = 3  # validation errors that a message names


def add_exception_handlers(api: FastAPI) -> None:
    """Add a handler for every type of error."""
    handlers: dict[type[Exception], Any] = {
        RequestValidationError: handle_invalid_request,
        HTTPException: handle_http_exception,
        LoradexError: handle_loradex_error,
        ZooError: handle_loradex_error,
        OSError: lambda request, error: handle_loradex_error(request, disk_error(error)),
        ClientDisconnect: lambda request, error: Response(status_code=499),
        Exception: handle_internal_error,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


def error_response(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an error as the JSON document that all errors share."""
    retry = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    document = {"error": {"kind": kind, "message": bounded_line(message)}}
    return JSONResponse(document, status, {**(headers or {}), **retry})


def handle_loradex_error(request: Request, error: Exception) -> Response:
    """Handle an error of Loradex or of its zoo."""
    return error_response(status_of(error), type(error).__name__, str(error))


def handle_invalid_request(request: Request, error: Exception) -> Response:
    """Handle a request that does not match the schema in openapi.json."""
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(map(str, fault['loc']))[:80]}: {fault['msg']}, found {fault.get('input')!r:.80}"
        for fault in error.errors()[:MAX_FAULTS]
    ]
    return error_response(422, "QueryError", "; ".join(faults) + "; see openapi.json")


def handle_http_exception(request: Request, error: Exception) -> Response:
    """Handle an unknown route or method, or a body that is not JSON."""
    assert isinstance(error, HTTPException)
    kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "BadRequest")
    message = f"{request.method} {request.url.path[:200]}: {error.detail}; see openapi.json"
    return error_response(error.status_code, kind, message, dict(error.headers or {}))


def handle_internal_error(request: Request, error: Exception) -> Response:
    """Handle a bug in Loradex; its traceback goes to the server's log."""
    return error_response(
        500, "InternalError", "server: expected to answer, found an error of Loradex itself; see the server's log"
    )
