"""`--columns`."""

from pathlib import Path

import pytest
from catalog_files import write_csv

from mlcl_cli.catalog.columns import parse_columns
from mlcl_cli.catalog.opening import open_source
from mlcl_cli.errors import DataError, UsageError


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("id=sku,image=photo", {"id": "sku", "image": "photo"}),
        (" image = front , back,product=group ", {"image": "front,back", "product": "group"}),
        ("id=none", {"id": "none"}),
        ("image=a=b", {"image": "a=b"}),
    ],
)
def test_columns_are_parsed(text: str, columns: dict[str, str]) -> None:
    assert parse_columns(text) == columns


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--columns: expected pairs such as id=sku,image=photo, got ''"),
        ("id", "expected pairs such as id=sku,image=photo, got 'id'"),
        ("id=", "expected pairs such as id=sku,image=photo, got 'id='"),
        ("id=a,b", "got 'b'. Only image may have several columns"),
        ("image=a,", "got ''"),
        ("imgae=a", "sets 'imgae', but a catalog's columns are id, image, product; did you mean 'image'?"),
        ("sku=id", "sets 'sku', but a catalog's columns are id, image, product. Write it as id=sku"),
        ("id=a,id=b", "sets id twice. Keep one"),
        ("image=a,image=b", "sets image twice. Write several images as image=front,back"),
    ],
)
def test_other_text_is_an_error_that_shows_how_to_write_it(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_columns(text)
    assert message in str(error.value)


def test_a_missing_path_or_column_is_an_error_at_once(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [("sku", "image"), (1, "a.jpg")])
    with pytest.raises(DataError, match=r"has no column 'skuu'.*Set --columns id=sku, if that is the one"):
        open_source(path, {"id": "skuu"})
    with pytest.raises(
        UsageError, match=r"sets 'sku', but a catalog's columns are id, image, product. Write it as id=sku"
    ):
        open_source(path, {"sku": "id"})
    with pytest.raises(DataError, match=r"missing\.csv: does not exist"):
        open_source(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match="a folder of images has no columns"):
        open_source(tmp_path, {"id": "sku"})
    with pytest.raises(UsageError, match=r"a\.csv: is not a \.tar file, and only those can be several"):
        open_source([path, path])
