"""Uploads: received into a temporary folder, which is deleted after the response."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Generic, TypeVar, get_origin

import anyio
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from loradex.app.api.multipart import FormReader, UploadKind
from loradex.app.api.texts import map_strings, replace_paths
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError, QueryError

READ_TIMEOUT: Final = 60.0  # seconds without a byte after which the upload fails

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(slots=True)
class Form(Generic[Fields]):
    """A received form.

    Attributes:
        files: paths of the received files.
        filenames: the senders' names of the files, by path.
    """

    fields: Fields
    files: list[str]
    filenames: dict[str, str]

    def restore_names(self, document: Any) -> Any:
        """Replace the paths of received files in a JSON document by the senders' names."""
        return map_strings(document, lambda text: replace_paths(text, self.filenames))

    @contextmanager
    def restore_names_in_errors(self) -> Iterator[None]:
        """Replace the paths of received files in the message of an error that is raised within the context."""
        try:
            yield
        except (LoradexError, ZooError) as error:
            raise type(error)(self.restore_names(str(error))) from None


def form_dependency(
    model: type[Fields], file_field: str, kind: UploadKind
) -> Callable[[Request], AsyncIterator[Form[Fields]]]:
    """Return a FastAPI dependency that receives a form: the fields of a pydantic model, and files."""

    async def receive(request: Request) -> AsyncIterator[Form[Fields]]:
        limiter = request.app.state.upload_limiter
        await run_in_threadpool(limiter.acquire)
        try:
            with TemporaryDirectory(prefix="loradex-", ignore_cleanup_errors=True) as folder:
                reader = FormReader(Path(folder), file_field, kind)
                try:
                    await receive_form(request, reader)
                finally:
                    reader.close()
                if len(reader.filenames) < kind.min_files:
                    raise QueryError(f"{file_field}: expected at least one file, found none; send one as {file_field}")
                yield Form(parse_fields(model, reader.texts), list(reader.filenames), reader.filenames)
        finally:
            limiter.release()

    return receive


async def receive_form(request: Request, reader: FormReader) -> None:
    """Feed the body of a request to a form reader; in threads, as it writes files.

    Raises:
        QueryError: the body is not a form, or is incomplete.
        TooLarge: it holds too much.
    """
    parser = reader.parser(request.headers.get("content-type", ""))
    chunks = aiter(request.stream())
    try:
        while True:
            with anyio.fail_after(READ_TIMEOUT):
                chunk = await anext(chunks, None)
            if chunk is None:
                break
            await run_in_threadpool(partial(parser.write, chunk))
        parser.finalize()
        if not reader.ended:
            raise FormParserError("its last boundary is missing")
    except FormParserError:
        raise QueryError("body: expected a sound multipart/form-data form, found a broken one; send it again") from None
    except TimeoutError:
        raise QueryError(f"body: expected a form, found nothing for {READ_TIMEOUT:g} s; send it again") from None


def parse_fields(model: type[Fields], texts: Mapping[str, list[str]]) -> Fields:
    """Validate the texts of a form as the fields of a pydantic model.

    Raises:
        RequestValidationError: a field is invalid.
    """
    lists = {name for name, info in model.model_fields.items() if get_origin(info.annotation) is list}
    try:
        return model.model_validate({name: values if name in lists else values[-1] for name, values in texts.items()})
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from None


def request_body(model: type[BaseModel], file_field: str, kind: UploadKind) -> dict[str, Any]:
    """Return the OpenAPI schema of a form."""
    about = f"Up to {kind.max_files} files ({', '.join(kind.suffixes)}), each of up to {kind.max_bytes:,} bytes."
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    file = {"type": "string", "format": "binary"}
    schema["properties"] |= {
        file_field: {"type": "array", "items": file, "maxItems": kind.max_files, "description": about}
    }
    required = {"required": [file_field]} if kind.min_files else {}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema | required}}}}
