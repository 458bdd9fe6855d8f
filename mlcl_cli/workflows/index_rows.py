"""Rows from Python into a catalog, through the same code as `mlcl index`."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mlcl_cli.catalog.source import ImageFile, Shard, SourceRow
from mlcl_cli.config import Profile
from mlcl_cli.errors import DataError
from mlcl_cli.images.decode import BadImagesError
from mlcl_cli.progress import Progress
from mlcl_cli.stores.store import ID, IMAGE, PRODUCT, Catalog
from mlcl_cli.suggestions import shown
from mlcl_cli.workflows.index_shard import Counts
from mlcl_cli.workflows.indexing import WHOLE, Indexing, IndexOptions
from mlcl_cli.workflows.retrieval_model import RetrievalModel

logger = logging.getLogger(__name__)

OWN = (ID, IMAGE, PRODUCT)
FIELDS = "fields"
PLACE = Path("the rows given")


@dataclass(frozen=True)
class RowsSource:
    """A catalog's rows in memory, in the order given, from `start` on."""

    rows: Sequence[Mapping[str, object]]
    table: pa.Table
    start: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, object]], start: int, types: pa.Schema | None = None) -> "RowsSource":
        """From dictionaries, whose fields have the `types` given, or those of their values.

        Raises DataError for a row without an id or an image, and for a field of several types.
        """
        known = {} if types is None else {field.name: field.type for field in types}
        given = [*rows]
        for number, row in enumerate(given):
            for name in (ID, IMAGE):
                if not isinstance(row.get(name), str | int | Path) or not str(row[name]):
                    what = f"expected text under {name!r}, got {shown(row.get(name))}"
                    raise DataError(what, where=f"row {number}", remedy="Give each row an id and the path of an image")
        names = list(dict.fromkeys(name for row in given for name in _fields(row)))
        columns = {}
        for name in names:
            try:
                columns[name] = pa.array([_fields(row).get(name) for row in given], known.get(name))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                what = f"the values of {name!r} are not all of one type, or too large ({error})"
                raise DataError(what, where=PLACE, remedy="Convert them") from error
        return cls(given, pa.table(columns), start)

    @property
    def fields(self) -> pa.Schema:
        """The names and types of the rows' fields."""
        return self.table.schema

    @property
    def rows_estimate(self) -> int:
        """How many rows there are."""
        return len(self.rows)

    def batches(self, shard: Shard, size: int) -> Iterator[Sequence[SourceRow]]:
        """The rows, `size` at a time."""
        names = self.fields.names
        values = self.table.to_pylist() if names else [{} for _ in self.rows]
        for start in range(0, len(self.rows), size):
            batch = []
            for number in range(start, min(start + size, len(self.rows))):
                row, fields = self.rows[number], tuple(values[number][name] for name in names)
                identifier, image = str(row[ID]), str(row[IMAGE])
                product = str(row.get(PRODUCT) or identifier)
                file = ImageFile(image, str(Path(image).expanduser()))
                place = f"row {number}"
                if shard.holds(product):
                    batch.append(SourceRow(identifier, product, file, self.start + number, fields, place))
            yield batch


def _fields(row: Mapping[str, object]) -> Mapping[str, object]:
    """All but the id, image and product; those under "fields", as hits have them, among them."""
    inner = row.get(FIELDS)
    nested = {str(name): value for name, value in inner.items()} if isinstance(inner, Mapping) else None
    own = OWN if nested is None else (*OWN, FIELDS)
    return {name: value for name, value in row.items() if name not in own} | (nested or {})


def index_rows(
    profile: Profile,
    progress: Progress,
    catalog: Catalog,
    model: RetrievalModel,
    rows: Iterable[Mapping[str, object]],
    *,
    optimize: bool = True,
    types: pa.Schema | None = None,
) -> Counts:
    """Add rows, or replace those with the same ids. Raises as `mlcl index` does. `types` are as in `RowsSource.of`.

    Without `optimize`, the table is left as it is; whoever adds rows often does that from time to time.
    """
    current = catalog.current()
    if current is not None:  # whatever the profile has, the rows join the others
        section = profile.catalog.model_copy(update={"vectors": current.info.precision})
        profile = profile.model_copy(update={"catalog": section})
    source = RowsSource.of(rows, 0 if current is None else current.count(), types)
    options = IndexOptions((PLACE,), {})
    indexing = Indexing(profile, options, source, catalog, model.store, model.clip.choice)
    with progress.bar("Indexing", len(source.rows)) as advance:
        result, _ = indexing.index(WHOLE, advance)
    if result.bad:
        error = BadImagesError(result.bad, "Everything else is stored. Fix them, or set bad_images: drop")
        if profile.bad_images == "stop":
            raise error
        logger.warning(str(error))
    if optimize or not indexing.is_current:
        indexing.conclude(result, WHOLE)
    return result.counts
