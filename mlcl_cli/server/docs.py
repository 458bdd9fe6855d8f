"""The API's documentation, which needs no network."""

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from mlcl_cli.server.problems import ProblemError

router = APIRouter(include_in_schema=False)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mlcl: API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null});\n'
TYPES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


@router.get("/docs")
async def page() -> HTMLResponse:
    """Swagger's page of the API."""
    return HTMLResponse(PAGE)


@router.get("/docs/{name}")
async def asset(name: str) -> Response:
    """A file of that page."""
    headers = {"Cache-Control": "max-age=3600"}
    if name == "start.js":
        return Response(START, media_type="text/javascript", headers=headers)
    if name not in TYPES:
        raise ProblemError(404, "not found")
    content = (files("fastapi_offline") / "static" / name).read_bytes()
    return Response(content, media_type=TYPES[name], headers=headers)
