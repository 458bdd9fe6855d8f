"""The ids of a catalog, in eight bytes each, and the stored rows that are not among them."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mlcl_cli.catalog.source import Shard
from mlcl_cli.stores.store import ID, PRODUCT, Store


class IdSet:
    """Digests of ids, 64 bits each: among ten million, two are equal by chance in one of 400,000 catalogs."""

    def __init__(self) -> None:
        self._digests: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._unsorted: list[NDArray[np.uint64]] = []

    def copy(self) -> "IdSet":
        """Another set with the same ids."""
        other = IdSet()
        other._digests = self._sorted()
        return other

    def add(self, ids: Sequence[str]) -> None:
        """Add ids."""
        self._unsorted.append(_digests(ids))

    def _sorted(self) -> NDArray[np.uint64]:
        if self._unsorted:
            self._digests = np.sort(np.concatenate([self._digests, *self._unsorted]))
            self._unsorted.clear()
        return self._digests

    def without(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that are not in the set."""
        known = self._sorted()
        if not len(known):
            return list(ids)
        wanted = _digests(ids)
        places = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return [identifier for identifier, found in zip(ids, known[places] == wanted, strict=True) if not found]


def _digests(ids: Sequence[str]) -> NDArray[np.uint64]:
    texts = (identifier.encode("utf-8", "surrogatepass") for identifier in ids)
    return np.frombuffer(b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in texts), np.uint64)


def ids_of_shard(store: Store, shard: Shard, ids: Sequence[str] | None = None) -> Iterator[list[str]]:
    """The ids of the stored rows, or of those among `ids`, whose product belongs to the shard, batch by batch."""
    for batch in store.fetch([ID, PRODUCT], ids=ids):
        pairs = zip(batch.column(ID).to_pylist(), batch.column(PRODUCT).to_pylist(), strict=True)
        yield [identifier for identifier, product in pairs if shard.holds(product)]
