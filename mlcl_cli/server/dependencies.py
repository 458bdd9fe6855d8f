"""What routes take from the application."""

from typing import Annotated

from fastapi import Depends, Request

from mlcl_cli.server.guard import require_key
from mlcl_cli.server.service import Service


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceParameter = Annotated[Service, Depends(_service)]


def _writer(request: Request, service: ServiceParameter) -> Service:
    require_key(request, service.settings.key)
    return service


WriterParameter = Annotated[Service, Depends(_writer)]
