"""What a command of the tests returned."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    def findings(self, check: str) -> list[dict[str, Any]]:
        """What `mlcl check --json` found in that check, errors or not."""
        return [finding for finding in json.loads(self.out)["findings"] if finding["check"] == check]


Mlcl = Callable[..., Outcome]
