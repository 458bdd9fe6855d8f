"""The catalog's items: to read, to write, and to browse."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response

from mlcl_cli.errors import MlclError
from mlcl_cli.server.dependencies import ServiceParameter, WriterParameter
from mlcl_cli.server.guard import CLOSE
from mlcl_cli.server.pictures import count_pixels
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.requests import BulkItem, ItemRequest, openapi_body, parse_object, receive, validate
from mlcl_cli.server.search import answer_of, picture_bytes
from mlcl_cli.server.service import Service
from mlcl_cli.server.settings import Limits
from mlcl_cli.workflows.catalog_editing import ItemEdit
from mlcl_cli.workflows.retriever import Hit

router = APIRouter(prefix="/v1", tags=["items"])
LIMITS = Limits()
NDJSON = "application/x-ndjson"
AT_ONCE = 64  # items of a bulk upload that are stored together, of this many bytes
BYTES_AT_ONCE = 64 * 2**20
MAX_ERRORS = 100  # of a bulk upload that are listed
ItemId = Annotated[str, Path(max_length=LIMITS.id)]


@router.get("/items")
async def list_items(
    service: ServiceParameter,
    where: Annotated[str | None, Query(max_length=LIMITS.where)] = None,
    start: Annotated[int, Query(ge=0, le=2**31)] = 0,
    count: Annotated[int, Query(ge=1, le=LIMITS.page)] = 50,
    group_by: Annotated[Literal["product"] | None, Query()] = None,
) -> JSONResponse:
    """The items that satisfy a filter, in the order of the catalog, and how many there are.

    With `group_by=product`, the first of each product's.
    """
    loaded = service.loaded
    conditions = await service.reads.run(loaded.engine.conditions, where)
    list_page = partial(loaded.listing.page, by_product=group_by is not None)
    page = await service.reads.run(list_page, conditions, start, count)
    return JSONResponse({"items": [_item(hit) for hit in page.items], "total": page.total})


@router.get("/fields")
async def list_fields(service: ServiceParameter) -> JSONResponse:
    """The fields that filters can use: their kinds, their values where there are few, their ranges.

    `has_groups` says whether a product has several images.
    """
    listing = service.loaded.listing
    fields, has_groups = await service.reads.run(lambda: (listing.fields(), listing.has_groups()))
    listed = [
        {"name": one.name, "kind": one.kind, "values": one.values, "min": one.least, "max": one.greatest}
        for one in fields
    ]
    return JSONResponse({"fields": listed, "has_groups": has_groups})


@router.post(
    "/items",
    openapi_extra={"requestBody": {"required": True, "content": {NDJSON: {"schema": BulkItem.model_json_schema()}}}},
)
async def put_items(request: Request, service: WriterParameter) -> JSONResponse:
    """Add or change many items, as one by one: a JSON object a line.

    Lines that cannot be used are listed, the others are stored.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != NDJSON:
        raise ProblemError(415, f"expected {NDJSON}, got {kind[:100] or 'no content type'}")
    stored, failed, errors = 0, 0, list[dict[str, object]]()
    batch: dict[str, tuple[int, ItemEdit]] = {}

    async def store() -> None:
        nonlocal stored
        problems = await service.writes.run(_put_all, service, [*batch.values()])
        for number, problem in problems:
            refuse(number, problem)
        stored += len(batch) - len(problems)
        batch.clear()

    def refuse(number: int, problem: ProblemError) -> None:
        nonlocal failed
        failed += 1
        if len(errors) < MAX_ERRORS:
            errors.append({"line": number, **problem.body()})

    number = 0
    async for line in _lines(request):
        number += 1
        if not line.strip():
            continue
        try:
            item = validate(BulkItem, parse_object(line))
            edit = await _edit(service, item.id, item, None)
        except ProblemError as problem:
            refuse(number, problem)
            continue
        size = sum(len(one.image or b"") for _, one in batch.values())
        if item.id in batch or len(batch) == AT_ONCE or size > BYTES_AT_ONCE:
            await store()
        batch[item.id] = number, edit
    if batch:
        await store()
    return JSONResponse({"stored": stored, "failed": failed, "errors": errors})


@router.get("/items/{id:path}/image", response_class=Response, responses={200: {"content": {"image/jpeg": {}}}})
async def get_image(id: ItemId, service: ServiceParameter) -> Response:  # noqa: A002
    """A small picture of an item, in JPEG."""
    hit = await service.reads.run(service.loaded.engine.item, id)
    if not hit.thumbnail:
        raise ProblemError(404, "the item has no picture")
    return Response(hit.thumbnail, media_type="image/jpeg", headers={"Cache-Control": "max-age=60"})


@router.get("/items/{id:path}")
async def get_item(id: ItemId, service: ServiceParameter) -> JSONResponse:  # noqa: A002
    """An item and its fields."""
    return JSONResponse(_item(await service.reads.run(service.loaded.engine.item, id)))


@router.put("/items/{id:path}", openapi_extra=dict(openapi_body(ItemRequest)))
async def put_item(id: ItemId, request: Request, service: WriterParameter) -> JSONResponse:  # noqa: A002
    """Add or change an item. What is not sent stays as it is; null empties a field.

    A new item needs an image. The catalog's fields come from `mlcl index`: others are refused.
    """
    received = await receive(request)
    item = validate(ItemRequest, received.fields)
    edit = await _edit(service, id, item, received.upload)
    await service.writes.run(service.loaded.editor.put, [edit])
    return JSONResponse(_item(await service.reads.run(service.loaded.engine.item, id)))


@router.delete("/items/{id:path}", status_code=204)
async def delete_item(id: ItemId, service: WriterParameter) -> Response:  # noqa: A002
    """Remove an item."""
    await service.writes.run(service.loaded.editor.delete, id)
    return Response(status_code=204)


def _item(hit: Hit) -> dict[str, Any]:
    return {name: value for name, value in answer_of(hit).items() if name not in ("score", "levels")}


async def _edit(service: Service, identifier: str, item: ItemRequest, upload: bytes | None) -> ItemEdit:
    data = await picture_bytes(upload, item.image, service)
    if data is not None:
        await asyncio.to_thread(count_pixels, data)
    return ItemEdit(identifier, data, item.product, item.fields)


def _put_all(service: Service, edits: Sequence[tuple[int, ItemEdit]]) -> list[tuple[int, ProblemError]]:
    """Store items together; where that fails, halves of them, and return what is wrong with some by their lines."""
    try:
        service.loaded.editor.put([edit for _, edit in edits])
    except MlclError as error:
        if len(edits) == 1:
            return [(edits[0][0], ProblemError.of(error))]
        half = len(edits) // 2
        return _put_all(service, edits[:half]) + _put_all(service, edits[half:])
    return []


async def _lines(request: Request) -> AsyncIterator[bytes]:
    rest = bytearray()
    async for part in request.stream():
        first, *others = part.split(b"\n")
        rest += first
        for further in others:
            yield bytes(rest)
            rest = bytearray(further)
        if len(rest) > LIMITS.bulk_line:
            raise ProblemError(413, f"a line is longer than {LIMITS.bulk_line / 2**20:g} MiB", headers=CLOSE)
    if rest:
        yield bytes(rest)
