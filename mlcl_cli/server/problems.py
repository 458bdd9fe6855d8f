"""Errors over HTTP: application/problem+json (RFC 9457), with what is wrong, where, and what to do."""

import logging
from collections.abc import Collection, Sequence
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from mlcl_cli.errors import DataError, MachineError, MlclError, UsageError
from mlcl_cli.server.wording import describe
from mlcl_cli.workflows.references import UnknownItemError

logger = logging.getLogger(__name__)

STATUS = {UnknownItemError: 404, UsageError: 422, DataError: 422, MachineError: 503}


class ProblemError(Exception):
    """A request that cannot be answered, with the HTTP status that says why."""

    def __init__(
        self,
        status: int,
        what: str,
        *,
        where: str | None = None,
        remedy: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        self.status, self.what, self.where, self.remedy = status, what, where, remedy
        self.headers = {"Retry-After": "1"} | (headers or {}) if status == 503 else headers
        super().__init__(what)

    @classmethod
    def of(cls, error: MlclError) -> "ProblemError":
        """An error of the catalog or the query. What concerns this machine goes to the log."""
        status = next((status for kind, status in STATUS.items() if isinstance(error, kind)), 500)
        if status >= 500:
            logger.error(str(error))
            return cls(
                status, "the catalog cannot be used at the moment", remedy="Try again; the server's log says why"
            )
        where = None if error.where is None or isinstance(error.where, Path) else str(error.where)
        return cls(status, error.what, where=where, remedy=error.remedy)

    @classmethod
    def of_validation(cls, errors: Sequence[ErrorDetails], names: Collection[str] = ()) -> "ProblemError":
        """The first mistake in a request whose parameters have these names."""
        what, where = describe(errors, names)
        return cls(422, what, where=where)

    def body(self) -> dict[str, object]:
        """The problem's JSON."""
        parts = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.what,
            "where": self.where,
            "remedy": self.remedy,
        }
        return {name: value for name, value in parts.items() if value is not None}

    def response(self) -> JSONResponse:
        """The problem as an answer."""
        return JSONResponse(self.body(), self.status, self.headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Answer every error with a problem; one that nobody expected says nothing about its cause, but is logged."""

    @app.exception_handler(ProblemError)
    async def on_problem(_: Request, error: ProblemError) -> JSONResponse:
        return error.response()

    @app.exception_handler(MlclError)
    async def on_error(_: Request, error: MlclError) -> JSONResponse:
        return ProblemError.of(error).response()

    @app.exception_handler(ClientDisconnect)
    async def on_gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        return ProblemError(400, "the body was cut off").response()  # which is counted, since nobody reads it

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return ProblemError.of_validation(error.errors()).response()

    @app.exception_handler(HTTPException)
    async def on_http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers) if error.headers else None
        what = {404: "there is nothing at this address", 405: f"this address does not take {request.method[:20]}"}
        if error.status_code not in what:
            return ProblemError(error.status_code, str(error.detail), headers=headers).response()
        remedy = "/docs lists all calls"
        return ProblemError(error.status_code, what[error.status_code], remedy=remedy, headers=headers).response()

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> JSONResponse:
        logger.error("unexpected error", exc_info=error)
        return ProblemError(500, "the server made a mistake", remedy="Its log says which").response()
