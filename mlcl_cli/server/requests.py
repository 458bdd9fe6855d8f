"""What clients may send: fields, their limits, and the two forms of a search, JSON and multipart."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.settings import Limits

LIMITS = Limits()
URLS = ("http://", "https://")
Id = Annotated[str, StringConstraints(min_length=1, max_length=LIMITS.id)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Scalar = str | bool | int | float
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
Triple = tuple[FieldName, Operator, Scalar | list[Scalar]]


def _from_json(value: object) -> object:
    """A list in a form's field is JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


class SearchRequest(BaseModel):
    """A query: a reference (an image or an item of the catalog), words that modify it, or one of them alone."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[str, StringConstraints(max_length=LIMITS.text)] | None = None
    image: Annotated[str, Field(description="Base64, a data: URI, or an address if the server allows them")] | None = (
        None
    )
    item: Id | None = None
    where: Annotated[
        Annotated[str, StringConstraints(max_length=LIMITS.where)]
        | Annotated[list[Triple], Field(max_length=50)]
        | None,
        BeforeValidator(_from_json),
    ] = None
    exclude: Annotated[list[Id], BeforeValidator(_from_json), Field(max_length=LIMITS.exclude)] = []
    group_by: FieldName | None = None
    k: Annotated[int, Field(ge=1, le=LIMITS.k)] = 10
    explain: bool = False


class ItemRequest(BaseModel):
    """An item to store. Without an image, that of the stored item stays."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[str, Field(description="Base64, a data: URI, or an address if the server allows them")] | None = (
        None
    )
    product: Id | None = None
    fields: Annotated[
        dict[FieldName, Scalar | list[Scalar] | None], Field(max_length=200), BeforeValidator(lambda v: _object(v))
    ] = {}


class BulkItem(ItemRequest):
    """A line of a bulk upload."""

    id: Id


def _object(value: object) -> object:
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


class Received(BaseModel):
    """A request's fields, and the bytes of an uploaded image."""

    fields: dict[str, Any]
    upload: bytes | None = None


async def receive(request: Request) -> Received:
    """The fields of a JSON or multipart request. Raises ProblemError for anything else."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return Received(fields=parse_object(await request.body()))
    if kind == "multipart/form-data":
        return await _receive_form(request)
    what = f"expected application/json or multipart/form-data, got {kind[:100] or 'no content type'}"
    raise ProblemError(415, what)


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object. Raises ProblemError for anything else, also for text that is not UTF-8, NaN and infinities."""
    try:
        value = json.loads(body, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode()  # an unpaired surrogate cannot be encoded
    except (ValueError, RecursionError):
        raise ProblemError(400, "the body is not valid JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise ProblemError(422, "the body must be a JSON object")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


async def _receive_form(request: Request) -> Received:
    fields: dict[str, Any] = {}
    upload: bytes | None = None
    try:
        async with request.form(max_files=1, max_fields=LIMITS.exclude + 20, max_part_size=2**20) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "image":
                        raise ProblemError(422, "only image can be a file", where=name[:100])
                    upload = await value.read()
                elif name == "exclude" and not value.lstrip().startswith("["):
                    fields.setdefault(name, []).append(value)
                elif value != "" or name == "text":
                    fields[name] = value
    except HTTPException as error:
        raise ProblemError(400, str(error.detail)) from None
    return Received(fields=fields, upload=upload or None)


def decode_base64(text: str) -> bytes:
    """The bytes of an image in base64, or in a data: URI. Raises ProblemError for anything else."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise ProblemError(422, "expected a data: URI in base64", where="image")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ProblemError(422, "is not valid base64", where="image") from None


def openapi_body(model: type[BaseModel]) -> Mapping[str, Any]:
    """How OpenAPI describes a request that may be JSON or a form."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    form = {**schema, "properties": {**schema["properties"], "image": {"type": "string", "format": "binary"}}}
    content = {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content}}
