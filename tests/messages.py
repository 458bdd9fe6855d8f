"""What the package logs, for tests that read it."""

import logging


class Messages(logging.Handler):
    """Collects the package's messages from here on: `warnings`, and `notes` for all lesser ones."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []
        self.notes: list[str] = []
        package = logging.getLogger("mlcl_cli")
        package.setLevel(logging.INFO)
        package.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        messages = self.warnings if record.levelno >= logging.WARNING else self.notes
        messages.append(record.getMessage())
