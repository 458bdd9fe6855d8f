"""`mlcl make-triplets`: training triplets from a table of products, without annotators."""

import csv
import json
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.atomic_files import require_replaceable, write_file
from mlcl_cli.catalog.captions import DEFAULT, DEFAULT_TEMPLATES, Captions, ValueChange, compile_captions
from mlcl_cli.catalog.pairs import PairCounts, Pairing, Rules
from mlcl_cli.catalog.products import Products, read_products
from mlcl_cli.catalog.relative import Relative, read_relative
from mlcl_cli.config.strict_yaml import LineError, parse
from mlcl_cli.data.annotations import read_text
from mlcl_cli.data.table_files import DELIMITERS, TableFile
from mlcl_cli.errors import DataError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.progress import Progress
from mlcl_cli.seeding import derive_seed
from mlcl_cli.suggestions import did_you_mean, shown

logger = logging.getLogger(__name__)

COLUMNS = ("reference", "target", "caption", "split")
JOIN, RELATIVE = "join", "relative"  # keys of a file of templates that are no attributes
DEFAULT_JOIN = " and "
PRODUCTS_AT_ONCE = 1000  # between two updates of the progress bar


@dataclass(frozen=True)
class Source:
    """A table of products and the columns to use: the image, the attributes, and what no pair may change."""

    table: Path
    attributes: Sequence[str]
    image: str = "image"
    within: str | None = None

    def __post_init__(self) -> None:
        """Raise UsageError if no attribute is named, or a column has two purposes."""
        if not self.attributes:
            raise UsageError("names no column", where="--attributes", remedy="Write it as color,sleeve")
        others = {self.image: "--image", self.within: "--within"}
        for number, name in enumerate(self.attributes):
            if name in self.attributes[:number]:
                raise UsageError(f"names {name!r} twice", where="--attributes", remedy="Name each column once")
            if name in others:
                remedy = "Name different columns"
                raise UsageError(f"names {name!r}, as {others[name]} does", where="--attributes", remedy=remedy)


@dataclass(frozen=True)
class MadeTriplets:
    """The triplets in `output`, in counts, and what could not be used of `products`."""

    output: Path
    products: Products
    counts: PairCounts
    relative: Sequence[Relative]

    @property
    def changes(self) -> Mapping[str, int]:
        """Triplets by the attributes and the relative changes."""
        return {self._label(change): count for change, count in self.counts.changes.items()}

    @property
    def ambiguous(self) -> Mapping[str, int]:
        """Pairs of a reference and new values that too many products fit, by change."""
        return {self._label(change): count for change, count in self.counts.ambiguous.items()}

    @property
    def values(self) -> Mapping[str, Mapping[str, int]]:
        """For each attribute, triplets by its new value."""
        pairs = zip(self.products.attributes, self.counts.values, strict=True)
        return {column.name: dict(zip(column.values, counts, strict=True)) for column, counts in pairs}

    def _label(self, change: Sequence[int]) -> str:
        names = [*(column.name for column in self.products.attributes), *(part.label for part in self.relative)]
        return "+".join(names[number] for number in change)

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "command": "make-triplets",
            "output": str(self.output),
            "products": self.products.rows,
            "triplets": self.counts.splits,
            "changes": self.changes,
            "values": self.values,
            "not_used": {
                "products_without_value": dict(self.products.empty),
                "products_with_several_values": dict(self.products.several),
                "products_without_pair": self.counts.without_pair,
                "ambiguous_pairs": self.ambiguous,
            },
        }


def make_triplets(
    source: Source, output: Path, progress: Progress, *, rules: Rules, templates: Path | None = None
) -> MadeTriplets:
    """Write triplets of the products that differ in one attribute or two; `templates` replaces the English captions.

    Raises UsageError if `output` has another ending than .csv or .tsv or holds something else, DataError for what is
    wrong in the table or the templates and if there is no pair.
    """
    if (delimiter := DELIMITERS.get(output.suffix.lower())) is None:
        raise UsageError(f"must end in {' or '.join(DELIMITERS)}", where=output, remedy="Choose another --output")
    require_replaceable(output, delimiter.join(COLUMNS), "a table of triplets")
    if rules.changes > len(source.attributes):
        what = f"{rules.changes} attributes cannot change: --attributes names {len(source.attributes)}"
        raise UsageError(what, where="--changes", remedy="Name more columns in --attributes")
    captions = read_captions(templates or DEFAULT_TEMPLATES, source.attributes, is_own=templates is not None)
    products = read_products(TableFile(source.table), source.image, source.attributes, source.within)
    captions.require_clear([list(column.values) for column in products.attributes])
    pairing = Pairing(products, rules, captions.relative)

    def write(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(_rows(products, pairing, captions, rules.seed, progress))
        if not sum(pairing.counts.splits.values()):
            raise _no_pairs(source, rules, pairing.counts)

    write_file(output, write)
    if rules.val_fraction and not pairing.counts.splits["val"]:
        logger.warning("val is empty: no two of its products make a pair. Raise --val-fraction, or split by hand")
    return MadeTriplets(output, products, pairing.counts, captions.relative)


def read_captions(path: Path, attributes: Sequence[str], *, is_own: bool) -> Captions:
    """The captions of `attributes` and of relative changes, from a YAML file. Raises DataError, with the line.

    If the file `is_own`, the user's, a warning names the keys that no attribute uses.
    """
    try:
        document = parse(read_text(path, "Correct --templates"))
        if document.duplicates:
            raise document.duplicates[0]
        if not document.value or not isinstance(document.value, dict):
            raise LineError(f"must be attributes with a list of templates each, not {shown(document.value)}", 1)
        places = {key: f"{path}, line {document.lines[key,]}" for key in document.value}
        values = dict(document.value)
        if not isinstance(join := values.pop(JOIN, DEFAULT_JOIN), str):
            raise LineError(f"{JOIN}: must be text, not {shown(join)}", document.lines[JOIN,])
        if not isinstance(entries := values.pop(RELATIVE, {}), dict):
            raise LineError(f"{RELATIVE}: must be named changes, not {shown(entries)}", document.lines[RELATIVE,])
        templates: dict[str, list[str]] = {}
        for key, value in values.items():
            texts = [text for text in value if isinstance(text, str)] if isinstance(value, list) else []
            if not texts or texts != value:
                raise LineError(f"{key}: must be a list of templates, not {shown(value)}", document.lines[key,])
            templates[key] = texts
    except LineError as error:
        place = f"{path}, line {error.line}" if error.line else str(path)
        raise DataError(error.what, where=place, remedy="Correct the templates") from error
    known = {DEFAULT, *(name.casefold() for name in attributes)}
    for key in templates:
        if is_own and key.casefold() not in known:
            logger.warning(f"{places[key]}: {key!r} is not in --attributes{did_you_mean(key, attributes)}")
    relative = [
        change
        for label, entry in entries.items()
        for change in read_relative(
            label, entry, attributes, f"{path}, line {document.lines[RELATIVE, label]}", logger.warning
        )
    ]
    return compile_captions(attributes, templates, join, {**places, "": str(path)}, relative)


def _rows(
    products: Products, pairing: Pairing, captions: Captions, seed: int, progress: Progress
) -> Iterator[tuple[str, ...]]:
    """The table's rows, in its columns' order."""
    draw = random.Random(derive_seed(seed, "captions"))
    columns = [(list(column.values), column.codes) for column in products.attributes]
    with progress.bar("Making triplets", len(products.images)) as advance:
        for number, pairs in enumerate(pairing.pairs(), 1):
            for pair in pairs:
                changes = []
                for attribute in pair.change:
                    if attribute >= len(columns):
                        changes.append(ValueChange(attribute))
                        continue
                    values, codes = columns[attribute]
                    changes.append(
                        ValueChange(attribute, values[codes[pair.reference]], values[codes[pair.targets[0]]])
                    )
                targets = [products.images[target] for target in pair.targets]
                reference, caption = products.images[pair.reference], captions.caption(changes, draw)
                yield _cell([reference]), _cell(targets), _cell([caption]), pair.split
            if number % PRODUCTS_AT_ONCE == 0 or number == len(products.images):
                advance((number - 1) % PRODUCTS_AT_ONCE + 1)


def _cell(texts: Sequence[str]) -> str:
    """A cell that TableFile reads as `texts`: a JSON list, unless it is one text that is read unchanged."""
    plain = texts[0].isprintable() and texts[0] == texts[0].strip() and not texts[0].startswith("[")
    if len(texts) == 1 and plain:
        return texts[0]
    return json.dumps(texts, ensure_ascii=False)


def _no_pairs(source: Source, rules: Rules, counts: PairCounts) -> DataError:
    if any(counts.ambiguous.values()):
        what = f"every change leads to more than {counted(rules.max_targets, 'product')} with the same values"
        return DataError(what, where=source.table, remedy="Name more columns in --attributes, or raise --max-targets")
    names = " or ".join(source.attributes)
    what = f"no two products differ only in {names}" + (f" and agree in {source.within}" if source.within else "")
    return DataError(what, where=source.table, remedy="Name fewer columns in --attributes, or set --changes 2")
