"""Every failure of the API in one shape, with a status by its kind."""

from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from loradex.app.api.errors import RETRY_AFTER, status_of, typed
from loradex.app.api.texts import one_line
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError

SHOWN: Final = 3  # faults of a request that are told


def answer_failures(api: FastAPI) -> None:
    """Have every error answered."""
    handlers: dict[type[Exception], Any] = {
        RequestValidationError: misread,
        HTTPException: refused,
        LoradexError: failed,
        ZooError: failed,
        OSError: lambda request, error: failed(request, typed(error)),
        ClientDisconnect: lambda request, error: Response(status_code=499),
        Exception: broken,
    }
    for kind, handler in handlers.items():
        api.add_exception_handler(kind, handler)


def failure(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The one shape of all failures."""
    retry = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
    return JSONResponse({"error": {"kind": kind, "message": one_line(message)}}, status, {**(headers or {}), **retry})


def failed(request: Request, error: Exception) -> Response:
    """An error of the domain."""
    return failure(status_of(error), type(error).__name__, str(error))


def misread(request: Request, error: Exception) -> Response:
    """A request that is not as the API's description says."""
    assert isinstance(error, RequestValidationError)
    faults = [
        f"{'.'.join(map(str, fault['loc']))[:80]}: {fault['msg']}, found {fault.get('input')!r:.80}"
        for fault in error.errors()[:SHOWN]
    ]
    return failure(422, "QueryError", "; ".join(faults) + "; see openapi.json")


def refused(request: Request, error: Exception) -> Response:
    """A route or method that is not there, or a body that is no JSON."""
    assert isinstance(error, HTTPException)
    kinds = {404: "NotFound", 405: "MethodNotAllowed"}
    message = f"{request.method} {request.url.path[:200]}: {error.detail}; see openapi.json"
    return failure(error.status_code, kinds.get(error.status_code, "BadRequest"), message, dict(error.headers or {}))


def broken(request: Request, error: Exception) -> Response:
    """An error of Loradex itself, which goes to the server's log."""
    return failure(
        500, "InternalError", "server: expected to answer, found an error of Loradex itself; see the server's log"
    )
