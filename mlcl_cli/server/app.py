"""The application that a worker runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from mlcl_cli import __version__
from mlcl_cli.server import docs, items, page, search, status
from mlcl_cli.server.guard import BodyLimit, Headers, Observer, Origins
from mlcl_cli.server.problems import add_handlers
from mlcl_cli.server.service import Service
from mlcl_cli.server.settings import ServerSettings

DESCRIPTION = "Composed image retrieval: a reference image and words that modify it find items of a catalog."


def create_app(settings: ServerSettings) -> FastAPI:
    """Load the model and the catalog. Raises as `Loaded.open` does."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="mlcl",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to an address on the host that the request names, whoever that is
        openapi_url="/openapi.json",
    )
    app.state.service = service
    add_handlers(app)
    app.add_middleware(BodyLimit, limits=settings.limits)
    app.add_middleware(Origins, names=settings.hosts)
    app.add_middleware(Headers)
    app.add_middleware(Observer, metrics=service.metrics)
    for part in (search, items, status, docs, page):
        app.include_router(part.router)
    return app
