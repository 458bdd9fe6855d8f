"""The server's log: a JSON object a line on stderr, and what a person at its terminal is told besides."""

import json
import logging
import sys
from datetime import UTC, datetime

logger = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `facts` of a record become keys."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)  # in ASCII: nothing in it can break the line or move a terminal's cursor


def announce(text: str, event: str, address: str) -> None:
    """Say how the server is: to a person at a terminal in a line of text, to whatever else reads the log in JSON."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)
    else:
        logger.info(event, extra={"facts": {"address": address}})


def set_up_logging() -> None:
    """Send the log of this process to stderr, uvicorn's warnings included; requests are logged by `Observer`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in ("mlcl_cli", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
    logging.getLogger("mlcl_cli").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
