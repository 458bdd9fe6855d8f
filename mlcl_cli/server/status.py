"""Whether the server lives and answers, and its counters."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from mlcl_cli.server.dependencies import ServiceParameter
from mlcl_cli.server.problems import ProblemError

router = APIRouter(tags=["status"])


@router.get("/healthz")
async def health() -> JSONResponse:
    """The process lives."""
    return JSONResponse({"status": "ok"})


@router.get("/readyz")
async def readiness(service: ServiceParameter) -> JSONResponse:
    """Searches are answered."""
    if not service.is_ready:
        raise ProblemError(503, "not ready")
    return JSONResponse({"status": "ok"})


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: ServiceParameter) -> Response:
    """Counters in Prometheus' format."""
    return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)
