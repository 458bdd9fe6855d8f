"""POST /v1/search."""

import asyncio
import time
from contextlib import nullcontext
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from mlcl_cli.server.addresses import fetch_image
from mlcl_cli.server.dependencies import ServiceParameter
from mlcl_cli.server.problems import ProblemError
from mlcl_cli.server.requests import URLS, SearchRequest, decode_base64, openapi_body, receive, validate
from mlcl_cli.server.service import Service
from mlcl_cli.workflows.hits import as_json
from mlcl_cli.workflows.retriever import Hit, Query
from mlcl_cli.workflows.search_engine import SearchOptions

router = APIRouter(prefix="/v1")


@router.post("/search", tags=["search"], openapi_extra=dict(openapi_body(SearchRequest)))
async def search(request: Request, service: ServiceParameter) -> JSONResponse:
    """Items that look like the reference as the text modifies it, best first.

    The reference is an image or an item of the catalog, which is not among the hits. Without a reference, the text
    alone is searched for; without a text, the reference.
    """
    began = time.perf_counter()
    service.batcher.require_room()
    received = await receive(request)
    asked = validate(SearchRequest, received.fields)
    engine = service.loaded.engine
    query = Query(asked.text, None, asked.item, tuple(asked.exclude))
    where = (
        asked.where
        if asked.where is None or isinstance(asked.where, str)
        else [
            (name, operator, tuple(value) if isinstance(value, list) else value)
            for name, operator, value in asked.where
        ]
    )
    conditions = await asyncio.to_thread(engine.conditions, where)
    options = SearchOptions(tuple(conditions), asked.k, asked.group_by, asked.explain)
    async with service.fetches if (asked.image or "").startswith(URLS) else nullcontext():
        image = await picture_bytes(received.upload, asked.image, service)
        hits = await service.batcher.search(engine, query, options, image)
    answer: dict[str, Any] = {
        "hits": [answer_of(hit) for hit in hits],
        "took_ms": round((time.perf_counter() - began) * 1000, 3),
        "model": service.loaded.about,
    }
    return JSONResponse(answer)


def answer_of(hit: Hit) -> dict[str, object]:
    """A hit as clients see it: with the address of its picture instead of a path on this machine."""
    return {**as_json(hit), "image": f"/v1/items/{quote(hit.id, safe='')}/image"}


async def picture_bytes(upload: bytes | None, given: str | None, service: Service) -> bytes | None:
    """The file of an image: uploaded, in base64, or at an address."""
    if upload is not None or not given:
        if upload is not None and given:
            raise ProblemError(422, "is given twice", where="image")
        return upload
    if given.startswith(URLS):
        if not service.settings.allow_urls:
            remedy = "Send the image itself, or start the server with --allow-urls"
            raise ProblemError(422, "this server fetches no addresses", where="image", remedy=remedy)
        return await fetch_image(given, service.settings.limits.body)
    return await asyncio.to_thread(decode_base64, given)
