"""Uploads: read into a folder of their own, and gone when they are answered."""

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

from loradex.app.api.multipart import FormReader, Kind
from loradex.app.api.texts import mapped, renamed
from loradex.index.errors import ZooError
from loradex.retrieval.errors import LoradexError, QueryError

SILENCE: Final = 60.0  # seconds without a byte after which a sender is given up

Fields = TypeVar("Fields", bound=BaseModel)


@dataclass(slots=True)
class Form(Generic[Fields]):
    """A form that was read; ``names`` are the senders' names of the files, by the paths where they lie now."""

    fields: Fields
    files: list[str]
    names: dict[str, str]

    def named(self, document: Any) -> Any:
        """A document in which the files are called as their senders call them."""
        return mapped(document, lambda text: renamed(text, self.names))

    @contextmanager
    def telling_names(self) -> Iterator[None]:
        """Errors within call the files as their senders call them."""
        try:
            yield
        except (LoradexError, ZooError) as error:
            raise type(error)(self.named(str(error))) from None


def form_of(model: type[Fields], upload: str, kind: Kind) -> Callable[[Request], AsyncIterator[Form[Fields]]]:
    """A FastAPI dependency that reads a form of a model's fields and some files."""

    async def read(request: Request) -> AsyncIterator[Form[Fields]]:
        turns = request.app.state.uploading
        await run_in_threadpool(turns.take)
        try:
            with TemporaryDirectory(prefix="loradex-", ignore_cleanup_errors=True) as folder:
                reader = FormReader(Path(folder), upload, kind)
                try:
                    await receive(request, reader)
                finally:
                    reader.close()
                if len(reader.names) < kind.least:
                    raise QueryError(f"{upload}: expected at least one file, found none; send one as {upload}")
                yield Form(fields_of(model, reader.texts), list(reader.names), reader.names)
        finally:
            turns.give_back()

    return read


async def receive(request: Request, reader: FormReader) -> None:
    """Read a body into a form, each piece in a thread, as files are written.

    Raises:
        QueryError: it is no form, or breaks off.
        TooLarge: a part of it is.
    """
    parser = reader.parser(request.headers.get("content-type", ""))
    pieces = aiter(request.stream())
    try:
        while True:
            with anyio.fail_after(SILENCE):
                piece = await anext(pieces, None)
            if piece is None:
                break
            await run_in_threadpool(partial(parser.write, piece))
        parser.finalize()
        if not reader.ended:
            raise FormParserError("its last boundary is missing")
    except FormParserError:
        raise QueryError("body: expected a sound multipart/form-data form, found a broken one; send it again") from None
    except TimeoutError:
        raise QueryError(f"body: expected a form, found nothing for {SILENCE:g} s; send it again") from None


def fields_of(model: type[Fields], texts: Mapping[str, list[str]]) -> Fields:
    """The fields of a form.

    Raises:
        RequestValidationError: one is not as it should be.
    """
    many = {name for name, info in model.model_fields.items() if get_origin(info.annotation) is list}
    try:
        return model.model_validate({name: said if name in many else said[-1] for name, said in texts.items()})
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()]) from None


def body_of(model: type[BaseModel], upload: str, kind: Kind) -> dict[str, Any]:
    """The form as OpenAPI describes it."""
    about = f"Up to {kind.most} files ({', '.join(kind.endings)}), each of up to {kind.largest:,} bytes."
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    file = {"type": "string", "format": "binary"}
    schema["properties"] |= {upload: {"type": "array", "items": file, "maxItems": kind.most, "description": about}}
    required = {"required": [upload]} if kind.least else {}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema | required}}}}
