"""The page that a shop would show."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)


@router.get("/")
async def index() -> HTMLResponse:
    """The page."""
    return HTMLResponse("<!doctype html><title>mlcl</title>")
