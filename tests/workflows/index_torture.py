"""Cuts `mlcl index` at random moments, runs it again, and compares the table with one that nobody cut.

python tests/workflows/index_torture.py CUTS [milvus://HOST:PORT]. The catalog is indexed, edited, indexed with --sync,
and indexed by a new CLIP, to which searches switch. Commands run in forked copies of this process, and commit every few
rows. The uncut table is in LanceDB.
"""

import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from forked import SIGNALS, finished, in_child, start, wait

PRODUCTS = 160
COMMAND = ("index", "products.csv", "--sync", "--force", "--json")
KILLED, STOPPED = -9, 75


def preload() -> None:
    """Import what forked commands need; LanceDB itself starts a thread, which no fork survives."""
    import lance_namespace  # noqa: F401
    import pandas as pd  # noqa: F401
    import pyarrow.dataset  # noqa: F401
    import torch

    from mlcl_cli.models.weights import import_clip
    from mlcl_cli.workflows import index_shard, indexing  # noqa: F401

    torch.set_num_threads(1)
    import_clip()
    index_shard.ROWS_AT_ONCE, index_shard.ROWS_BETWEEN_COMMITS = 32, 16


class Shop:
    """A catalog under edit.

    `kept` are the ids that no edit since the last whole run has touched, `beside` counts the cuts of a run that builds
    the table of a new CLIP while searches use the other one.
    """

    def __init__(self, draw: random.Random, store: str = "lancedb") -> None:
        from shop import product, shop

        self.store, self.name = store, f"cut-{draw.getrandbits(32):08x}"
        self.draw, self.folder = draw, shop(Path(tempfile.mkdtemp(prefix="torture-index-")), PRODUCTS)
        self.rows = [product(number) for number in range(PRODUCTS)]
        self.kept: set[str] = set()
        self.pictures = PRODUCTS
        self.has_new_clip, self.beside = False, 0

    @property
    def command(self) -> tuple[str, ...]:
        return (*COMMAND, "--store", self.store, "--catalog", self.name)

    def begin_anew(self) -> None:
        """With an empty workspace."""
        shutil.rmtree(self.folder / "work")
        self.name, self.kept, self.has_new_clip = f"cut-{self.draw.getrandbits(32):08x}", set(), False

    def edit(self) -> None:
        """Change images and fields, remove and add products."""
        from shop import product, write_products
        from world import picture

        self.kept, self.has_new_clip = {row["id"] for row in self.rows}, False
        for row in self.draw.sample(self.rows, PRODUCTS // 4):
            self.kept.discard(row["id"])
            action = self.draw.randrange(3)
            if action == 0:
                picture(self.folder / row["image"], self.draw.randrange(10_000))
            elif action == 1:
                row["price"] = self.draw.randrange(100) + 0.25
            else:
                self.rows.remove(row)
                self.rows.append(product(self.pictures))
                picture(self.folder / self.rows[-1]["image"], self.pictures)
                self.pictures += 1
        write_products(self.folder / "products.csv", self.rows)

    def new_clip(self) -> None:
        """Another CLIP under the same name."""
        from world import tiny_clip

        tiny_clip(self.folder / "clip.pt", seed=self.draw.randrange(10_000))
        self.kept, self.has_new_clip = {row["id"] for row in self.rows}, True

    def current(self) -> str | None:
        """The table in LanceDB that searches use."""
        state = self.folder / f"work/catalogs/{self.name}/catalog.json"
        return json.loads(state.read_text())["current"] if state.exists() else None

    def check_cut(self, before: str | None) -> None:
        """No id is there twice, and whatever was there before and is still in the catalog is there.

        If `before` is not the current table any more, the one that replaced it is complete.
        """
        from shop import stored

        if self.kept:
            assert self.kept <= stored(self.folder, self.name, self.store).keys()
        if self.current() != before:
            assert stored(self.folder, self.name, self.store).keys() == {row["id"] for row in self.rows}

    def check_whole(self, name: str | None = None) -> None:
        """The table is that of a run that nobody cut."""
        from shop import assert_same_rows, stored

        found, expected = stored(self.folder, name or self.name, self.store), stored(self.folder, "whole")
        assert len(found) == len(self.rows)
        for row in (*found.values(), *expected.values()):
            row.pop("position")  # a row keeps its own until something else of it changes
        assert_same_rows(found, expected)


def cut(shop: Shop, seconds: float, cuts: int) -> Counter[str]:
    """Run the command to its end through some cuts; counts those that met it alive, by signal."""
    met: Counter[str] = Counter()
    before = shop.current()
    for _ in range(cuts):
        child = start(shop.folder, shop.command)
        time.sleep(shop.draw.uniform(0.2 * seconds, seconds))
        if finished(child) is not None:
            break
        chosen = shop.draw.choice((SIGNALS[0], *SIGNALS[:3]))
        os.kill(child, chosen)
        code = wait(child)
        assert code in (0, KILLED, STOPPED), log(shop)
        met[chosen.name] += code != 0
        in_child(lambda: shop.check_cut(before))
        shop.beside += shop.has_new_clip and code != 0 and shop.current() == before is not None
    assert wait(start(shop.folder, shop.command)) == 0, log(shop)
    return met


def log(shop: Shop) -> str:
    return (shop.folder / "log").read_text()[-3000:]


def torture(cuts: int, seed: int, store: str = "lancedb", *, report: bool = False) -> Counter[str]:
    """At least `cuts` cuts. Raises AssertionError where a row is lost, there twice, or not what it should be."""
    preload()
    draw, total = random.Random(seed), Counter[str]()
    shop = Shop(draw, store)
    try:
        while total.total() < cuts:
            for change in (lambda: None, shop.edit, shop.new_clip):
                change()
                began = time.monotonic()
                shutil.rmtree(shop.folder / "work/catalogs/whole", ignore_errors=True)
                assert wait(start(shop.folder, (*COMMAND, "--catalog", "whole"))) == 0, log(shop)
                total += cut(shop, time.monotonic() - began, draw.randint(1, 4))
                in_child(shop.check_whole)
                if report:
                    print(f"{dict(total)}, {total.total()} of {cuts}, {shop.beside} beside an old table", flush=True)
            if draw.random() < 0.3:  # begin with an empty workspace again
                shop.begin_anew()
    finally:
        shutil.rmtree(shop.folder, ignore_errors=True)
    return total


def at_once(count: int) -> None:
    """Index in `count` processes at once, each a shard, then each the same, and compare with what one process makes."""
    preload()
    shop: Any = Shop(random.Random(0))
    try:
        index = ("index", "products.csv")
        assert wait(start(shop.folder, (*index, "--catalog", "whole"))) == 0, log(shop)
        shards = [("--shard", f"{number}/{count}") for number in range(count)]
        for name, further in (("shards", shards), ("same", [()] * count)):
            parts = [start(shop.folder, (*index, "--catalog", name, *options)) for options in further]
            assert [wait(part) for part in parts] == [0] * count, log(shop)
            in_child(partial(shop.check_whole, name))
    finally:
        shutil.rmtree(shop.folder, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "at-once":
        at_once(int(sys.argv[2]))
    else:
        print(torture(int(sys.argv[1]), int(time.time()), *sys.argv[2:], report=True))
