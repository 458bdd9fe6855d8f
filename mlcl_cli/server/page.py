"""The page that a shop would show, and its files."""

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from mimetypes import types_map
from pathlib import PurePath

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, StrictUndefined, Template

from mlcl_cli.server.dependencies import ServiceParameter
from mlcl_cli.server.problems import ProblemError

router = APIRouter(include_in_schema=False)

FOREVER = "public, max-age=31536000, immutable"


@dataclass(frozen=True)
class Assets:
    """The page's scripts, styles and icon by their names; `version` changes with any of them."""

    contents: dict[str, bytes]
    version: str


@cache
def read_assets() -> Assets:
    """The files beside this module."""
    contents = {file.name: file.read_bytes() for file in (files("mlcl_cli.server") / "static").iterdir()}
    digest = blake2b(digest_size=8)
    for name in sorted(contents):
        digest.update(name.encode() + contents[name])
    return Assets(contents, digest.hexdigest())


@cache
def _template() -> Template:
    source = (files("mlcl_cli.server") / "page.html.j2").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(source)


@router.get("/")
async def index(service: ServiceParameter) -> HTMLResponse:
    """The page."""
    name = service.settings.profile.catalog.name
    content = _template().render(
        assets=f"/static/{read_assets().version}",
        name="Catalog" if name == "default" else name,
        limits=service.settings.limits,
        has_levels=service.loaded.engine.model.combiner is not None,
    )
    return HTMLResponse(content, headers={"Cache-Control": "no-cache"})


@router.get("/static/{version}/{name}")
async def asset(version: str, name: str, request: Request) -> Response:
    """A file of the page. Its address holds its version, so that browsers need not ask again."""
    assets = read_assets()
    content = assets.contents.get(name)
    if content is None:
        raise ProblemError(404, "not found")
    etag = f'"{assets.version}"'
    headers = {"Cache-Control": FOREVER if version == assets.version else "no-cache", "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=types_map[PurePath(name).suffix], headers=headers)
