"""Threads for one kind of work each, so that none of it keeps the others waiting."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from mlcl_cli.server.problems import ProblemError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
BUSY = "the server is busy"


@dataclass(eq=False)
class Lane:
    """Some threads, and how many may wait for one of them or use it."""

    name: str
    threads: int
    max_waiting: int
    waiting: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads, self.name)

    async def run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """What the function returns. Raises what it does, and ProblemError at once if too many are waiting already."""
        if self.waiting >= self.max_waiting:
            raise ProblemError(503, BUSY, remedy="Try again")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        finally:
            self.waiting -= 1

    def stop(self) -> None:
        """End the threads once their work is done."""
        self._pool.shutdown()
