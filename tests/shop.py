"""A small catalog of products with pictures and a tiny CLIP, for tests, and what is stored of it."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from world import picture, tiny_clip

PROFILE = """\
dataset: fashioniq
workspace: work
device: cpu
workers: 2
clip:
  model: clip.pt
"""
PICTURES = 200  # distinct ones; further ones are links to them


def shop(folder: Path, count: int) -> Path:
    """A folder with `count` products in `products.csv`, their pictures, a tiny CLIP and `mlcl.yaml`."""
    tiny_clip(folder / "clip.pt")
    (folder / "mlcl.yaml").write_text(PROFILE)
    rows = [product(number) for number in range(count)]
    for number in range(count):
        if number < PICTURES:
            picture(folder / f"photos/{number}.jpg", number)
        else:
            (folder / f"photos/{number}.jpg").hardlink_to(folder / f"photos/{number % PICTURES}.jpg")
    write_products(folder / "products.csv", rows)
    return folder


def product(number: int) -> dict[str, Any]:
    """A row of the table."""
    return {"id": f"sku{number}", "image": f"photos/{number}.jpg", "price": number / 2, "color": "red"}


def write_products(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replace a table of products."""
    names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def stored(folder: Path, name: str = "default", store: str = "lancedb") -> dict[str, dict[str, Any]]:
    """All columns of all rows of the table that searches use, by id."""
    from mlcl_cli.stores.open import open_catalog

    current = open_catalog(store, folder / "work/catalogs", name).current()
    assert current is not None
    columns = current.info.schema().names
    rows = [row for batch in current.fetch(columns) for row in batch.to_pylist()]
    found = {row["id"]: row for row in rows}
    assert len(found) == len(rows) == current.count(), "an id is stored twice"
    return found


def assert_same_rows(first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]) -> None:
    """All columns are equal, apart from the last bits of vectors, which depend on what was encoded together."""
    assert first.keys() == second.keys()
    for identifier, row in first.items():
        other = second[identifier]
        assert row.keys() == other.keys()
        for column, value in row.items():
            if column == "vector":
                assert max(abs(a - b) for a, b in zip(value, other[column], strict=True)) < 2e-3, identifier
            elif column == "norm":
                assert abs(value - other[column]) < 1e-4 * value
            else:
                assert value == other[column], (identifier, column)
