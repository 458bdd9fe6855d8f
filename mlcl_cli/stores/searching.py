"""How a catalog is searched: exactly while that is fast, else by the store's approximate index."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlcl_cli.stores.conditions import Conditions
from mlcl_cli.stores.store import Found, Store, Vectors

SearchMode = Literal["auto", "exact", "index"]
MAX_EXACT_ON_CPU = 150_000  # rows; 28 ms per 100,000 on one core (measured)


@dataclass(frozen=True)
class Searcher:
    """Searches a table; `cache` is a folder for the copy of the rows that exact search reads."""

    store: Store
    mode: SearchMode
    cache: Path
    device: str = "cpu"

    def search(self, queries: Vectors, k: int, conditions: Conditions = ()) -> list[list[Found]]:
        """The `k` best rows of each unit query (B, d), best first; equal scores in the order of `position`."""
        raise NotImplementedError
