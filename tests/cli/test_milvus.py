"""`mlcl index` and `mlcl search` on a Milvus server; `make milvus` runs them."""

import secrets
import threading
import time
from pathlib import Path

import pytest
from command_line import Mlcl, Outcome
from milvus_process import MILVUS, MilvusProcess
from shop import assert_same_rows, product, shop, stored, write_products
from world import picture, tiny_clip

from mlcl_cli.errors import DataError
from mlcl_cli.progress import NoProgress
from mlcl_cli.stores.open import open_catalog
from mlcl_cli.workflows import index_shard
from mlcl_cli.workflows.catalog_editing import CatalogEditor, ItemEdit
from mlcl_cli.workflows.retriever_profile import find_source
from mlcl_cli.workflows.search_engine import SearchEngine

pytestmark = pytest.mark.skipif(not MILVUS, reason="make milvus runs it")
COUNT = 30
COLORS = ("red", "green", "blue")
QUERIES = (
    ("in red",),
    ("--image", "photos/3.jpg"),
    ("--item", "sku3", "in red"),
    ("in red", "--where", "color = 'red' and price >= 3", "--set", "catalog.search=index"),
    ("in red", "--where", "id != 'sku6' and product in ('sku6', 'sku9')", "--set", "catalog.search=index"),
    ("in red", "--group-by", "color", "--set", "catalog.search=index"),
)


def write(folder: Path, rows: list[dict[str, object]]) -> None:
    write_products(folder / "products.csv", [row | {"color": COLORS[int(str(row["id"])[3:]) % 3]} for row in rows])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shop(tmp_path, COUNT)
    write(tmp_path, [product(number) for number in range(COUNT)])
    return tmp_path


@pytest.fixture
def on_server(milvus_server: str) -> tuple[str, ...]:
    """The options that name a catalog which does not exist yet."""
    return "--store", milvus_server, "--catalog", f"shop-{secrets.token_hex(4)}"


def assert_like_lancedb(mlcl: Mlcl, folder: Path, on_server: tuple[str, ...]) -> None:
    """Both hold the same rows, and find the same with the same scores."""
    _, address, _, name = on_server
    assert_same_rows(stored(folder, name, address), stored(folder))
    for query in QUERIES:
        command = ("search", *query, "-k", "5", "--json")
        found, expected = (mlcl(*command, *options).json["hits"] for options in (on_server, ()))
        assert [hit["id"] for hit in found] == [hit["id"] for hit in expected], query
        assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected], abs=1e-6)
        assert [hit["fields"] for hit in found] == [hit["fields"] for hit in expected]


def errors(outcome: Outcome) -> list[str]:
    """The lines on stderr besides notices."""
    return [line for line in outcome.err.splitlines() if not line.startswith("· ")]


def test_a_server_holds_and_finds_what_lancedb_does(mlcl: Mlcl, folder: Path, on_server: tuple[str, ...]) -> None:
    def index(*options: str) -> list[int]:
        """Into both; returns what was added, encoded and removed."""
        both = [mlcl("index", "products.csv", "--json", *options, *store).json for store in ((), on_server)]
        counts = [[one[key] for key in ("added", "encoded", "removed", "rows")] for one in both]
        assert counts[0] == counts[1]
        assert all(one["current"] for one in both)
        return counts[0]

    assert index() == [COUNT, COUNT, 0, COUNT]
    assert_like_lancedb(mlcl, folder, on_server)
    assert index() == [0, 0, 0, COUNT]

    picture(folder / "photos/7.jpg", 1000)
    write(folder, [product(number) | {"price": 4.25} for number in range(3, COUNT)])
    assert index("--sync") == [0, 1, 3, COUNT - 3]
    assert_like_lancedb(mlcl, folder, on_server)

    tiny_clip(folder / "clip.pt", seed=5)
    assert index("--sync") == [COUNT - 3, COUNT - 3, 0, COUNT - 3]
    assert_like_lancedb(mlcl, folder, on_server)


def test_shards_on_a_server_give_the_table_of_one_process(mlcl: Mlcl, folder: Path, on_server: tuple[str, ...]) -> None:
    parts = [mlcl("index", "products.csv", "--shard", f"{part}/2", "--json", *on_server).json for part in range(2)]
    assert [part["current"] for part in parts] == [False, True]
    assert sum(part["added"] for part in parts) == COUNT
    mlcl("index", "products.csv")
    assert_like_lancedb(mlcl, folder, on_server)


def test_profile_names_the_server(mlcl: Mlcl, folder: Path, on_server: tuple[str, ...]) -> None:
    _, address, _, name = on_server
    with (folder / "mlcl.yaml").open("a") as profile:
        profile.write(f"catalog:\n  store: {address}\n  name: {name}\n")
    assert mlcl("index", "products.csv").code == 0
    assert not (folder / "work/catalogs" / name).exists()
    assert len(mlcl("search", "red", "--json", "-k", "3").json["hits"]) == 3


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("command", [("index", "products.csv"), ("search", "red")])
def test_wrong_address_is_one_line(mlcl: Mlcl, command: tuple[str, ...]) -> None:
    began = time.monotonic()
    outcome = mlcl(*command, "--quiet", "--store", "milvus://127.0.0.1:1")
    assert time.monotonic() - began < 15
    assert outcome.code != 0
    (line,) = errors(outcome)
    assert line.startswith("error: milvus://127.0.0.1:1: the server cannot be reached")


def test_indexing_goes_on_after_the_server_was_killed(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_shard, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(index_shard, "ROWS_BETWEEN_COMMITS", 16)
    count = 1_000
    shop(tmp_path, count)
    encoder = mlcl("index", "products.csv", "--json").json["encoder"]
    server = MilvusProcess(tmp_path)
    server.start()
    try:

        def kill_after_a_commit() -> None:
            catalog = open_catalog(server.address, tmp_path, "default")
            while (store := catalog.open(encoder)) is None or not store.count():
                time.sleep(0.01)
            server.kill()

        killer = threading.Thread(target=kill_after_a_commit)
        killer.start()
        outcome = mlcl("index", "products.csv", "--quiet", "--store", server.address)
        killer.join()
        assert outcome.code != 0
        (line,) = errors(outcome)
        assert line.startswith(f"error: {server.address}")
        server.start()
        rest = mlcl("index", "products.csv", "--json", "--store", server.address).json
        assert 0 < rest["encoded"] < count
        assert rest["rows"] == count
        assert_same_rows(stored(tmp_path, "default", server.address), stored(tmp_path))
    finally:
        server.stop()


def test_an_item_is_changed_field_by_field(mlcl: Mlcl, folder: Path, on_server: tuple[str, ...]) -> None:
    assert mlcl("index", "products.csv", *on_server).code == 0
    _, address, _, name = on_server
    source = find_source(folder / "mlcl.yaml", store=address, catalog=name, device="auto")
    editor = CatalogEditor(SearchEngine.open(source.profile, NoProgress(), in_background=True))
    before = stored(folder, name, address)["sku3"]
    editor.put([ItemEdit("sku3", None, None, {"price": 9.5})])
    editor.put([ItemEdit("sku3", (folder / "photos/7.jpg").read_bytes(), None, {"color": None})])
    after = stored(folder, name, address)["sku3"]
    assert (after["field.price"], after["field.color"], after["product"]) == (9.5, None, before["product"])
    with pytest.raises(DataError, match="no field 'colour'; did you mean 'color'"):
        editor.put([ItemEdit("sku3", None, None, {"colour": "red"})])
