"""What clients may send: fields, their limits, and the two forms of a search, JSON and multipart."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.settings import Limits

Model = TypeVar("Model", bound=BaseModel)
LIMITS = Limits()
URLS = ("http://", "https://")
Id = Annotated[str, StringConstraints(min_length=1, max_length=LIMITS.id)]
FieldName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Scalar = str | bool | int | float
ListedValues = Annotated[list[Scalar], Field(max_length=LIMITS.listed)]
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
Triple = tuple[FieldName, Operator, Scalar | ListedValues]


def _from_json(value: object) -> object:
    """A list or an object in a form's field is JSON."""
    is_json = isinstance(value, str) and value.lstrip().startswith(("[", "{"))
    return parse_json(str(value)) if is_json else value


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
    """A new item, or what changes of one. What is not sent stays as it is; a new item needs an image."""

    model_config = ConfigDict(extra="forbid")

    image: Annotated[str, Field(description="Base64, a data: URI, or an address if the server allows them")] | None = (
        None
    )
    product: Id | None = None
    fields: Annotated[
        dict[FieldName, Scalar | list[Scalar] | None],
        Field(max_length=200, description="Fields of the catalog. Those not sent stay as they are; null empties one."),
        BeforeValidator(_from_json),
    ] = {}


class BulkItem(ItemRequest):
    """A line of a bulk upload."""

    id: Id


class Received(BaseModel):
    """A request's fields, and the bytes of an uploaded image."""

    fields: dict[str, Any]
    upload: bytes | None = None


def validate(model: type[Model], given: Mapping[str, Any]) -> Model:
    """What was given as a request. Raises ProblemError for the first mistake in it."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise ProblemError.of_validation(error.errors(), [*model.model_fields]) from None


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
    """A JSON object. Raises ProblemError for anything else, and as `parse_json` does."""
    value = parse_json(body)
    if not isinstance(value, dict):
        raise ProblemError(422, "the body must be a JSON object")
    return value


def parse_json(text: bytes | str) -> object:
    """What JSON says. Raises ProblemError for text that is not valid, or not UTF-8, for NaN and infinities.

    Also for so many values that checking each would keep others waiting.
    """
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if sum(data.count(mark) for mark in b"[{,") > LIMITS.values:
        raise ProblemError(422, f"the JSON has more than {LIMITS.values:,} values")
    try:
        value: object = json.loads(data.decode(), parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # nor can an unpaired surrogate be encoded
    except (ValueError, RecursionError):
        raise ProblemError(400, "the body is not valid JSON in UTF-8") from None
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


async def _receive_form(request: Request) -> Received:
    fields: dict[str, Any] = {}
    upload: bytes | None = None
    _, options = parse_options_header(request.headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):  # Python knows some that take forever
        raise ProblemError(415, "expected a form in UTF-8")
    try:
        async with request.form(max_files=1, max_fields=LIMITS.exclude + 20, max_part_size=2**20) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name != "image":
                        raise ProblemError(422, "only image can be a file", where=name[:100])
                    upload = await value.read()
                elif name == "exclude":
                    given = _from_json(value)
                    fields.setdefault(name, []).extend(given if isinstance(given, list) else [value])
                    if len(fields[name]) > LIMITS.exclude:
                        raise ProblemError(422, f"has more than {LIMITS.exclude:,} items", where=name)
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
