"""Search in a catalog from Python. torch is imported when a retriever is loaded, not before."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from mlcl_cli.stores.store import Vectors
    from mlcl_cli.stores.where import Triple
    from mlcl_cli.workflows.index_shard import Counts
    from mlcl_cli.workflows.search_engine import SearchEngine

QueryImage: TypeAlias = "Image.Image | NDArray[np.uint8] | str | os.PathLike[str]"
Where: TypeAlias = "str | Sequence[Triple] | None"


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: an image or a catalog's item as the reference, words that modify it, or one of them alone.

    Hits are none of the ids in `exclude`.
    """

    text: str | None = None
    image: "QueryImage | None" = None
    item: str | None = None
    exclude: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the catalog that a query found.

    `score` is the inner product of the query and the image's unit feature, in [-1, 1]. `image` is its path as the
    catalog has it, `thumbnail` a small JPEG, empty if there is none. `fields` are the catalog's other columns. `levels`
    are the scores of each part of the query alone, if they were asked for: `image`, `text`, and a combiner's levels by
    the names of `combiner.levels` in the profile.
    """

    id: str
    score: float
    image: str
    fields: Mapping[str, object]
    levels: Mapping[str, float] | None
    product: str
    thumbnail: bytes = field(repr=False)


class Retriever:
    """A model, and a catalog that was encoded with its CLIP. Many threads may use it at once."""

    def __init__(self, engine: "SearchEngine") -> None:
        self._engine = engine

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        *,
        catalog: str | None = None,
        store: str | None = None,
        device: Literal["auto", "cuda", "cpu"] = "auto",
        combining_function: str | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Load from a workspace, a combiner's checkpoint, or a profile (.yaml).

        A workspace and a profile query with the workspace's best combiner for the catalog's CLIP, or with that in the
        file `checkpoint`; where there is no combiner, with the sum of image and text. `combining_function` chooses one
        as `mlcl evaluate` does. `catalog` and `store` are the profile's `catalog.name` and `catalog.store` by default.
        Raises DataError where the combiner and the catalog belong to different CLIPs.
        """
        from mlcl_cli.progress import NoProgress
        from mlcl_cli.workflows.retriever_profile import find_source
        from mlcl_cli.workflows.search_engine import SearchEngine

        profile, path = find_source(Path(source), catalog=catalog, store=store, device=device)
        path = path if checkpoint is None else Path(checkpoint).expanduser()
        return cls(SearchEngine.open(profile, NoProgress(), combining_function, path, needs_catalog=False))

    @property
    def combining_function(self) -> str:
        """How image and text are combined: "combiner", or the name of a baseline."""
        return self._engine.model.combining_function

    def about(self) -> dict[str, object]:
        """Which weights query: the object `model` of `mlcl search --json`."""
        return self._engine.about()

    def compose(
        self, images: "Sequence[QueryImage | None] | None" = None, texts: Sequence[str | None] | None = None
    ) -> "Vectors":
        """Unit queries (B, d) in fp32 of an image and a text each, one of which may be None.

        An image is a PIL image, a path, or an array (H, W, 3) of uint8. Raises UsageError for a query without both and
        for lists of different lengths, DataError for an image that cannot be read.
        """
        return self._engine.compose(images, texts)

    def search(
        self,
        text: str | None = None,
        *,
        image: "QueryImage | None" = None,
        item: str | None = None,
        where: Where = None,
        k: int = 10,
        group_by: str | None = None,
        exclude: Collection[str] = (),
        explain: bool = False,
    ) -> list[Hit]:
        """The `k` best rows of the catalog for a query, best first.

        The reference is an `image`, or the `item` with that id; neither the item nor another image of its product is
        among the hits, nor are the ids in `exclude`. Without a reference the words query alone, without words the
        reference does. `where` is text such as "price < 80 and category in ('boots', 'clogs')", or a list of (field,
        operator, value). With `group_by`, a field or "product", only the best row of each of its values is found.
        `explain` adds the score of each part of the query. Raises UsageError for a query without image, item and words
        or with both image and item, for an unknown item or field, and for a `k` below 1; DataError for an image that
        cannot be read, and where there is no catalog yet.
        """
        return self.search_many([Query(text, image, item, exclude)], where, k=k, group_by=group_by, explain=explain)[0]

    def search_many(
        self,
        queries: Sequence[Query],
        where: Where = None,
        *,
        k: int = 10,
        group_by: str | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        """The hits of each query, encoded and searched together. Raises as `search` does."""
        return self._engine.search_many(queries, where, k=k, group_by=group_by, explain=explain)

    def index(self, rows: Iterable[Mapping[str, object]]) -> "Counts":
        """Add rows to the catalog, or replace those with the same ids, as `mlcl index` does with a table.

        A row has an `id`, the path of an `image`, its `product` if several images share one, and any fields. Raises
        DataError for a row without them, and for images that cannot be read, after the others have been stored.
        """
        return self._engine.index(rows)
