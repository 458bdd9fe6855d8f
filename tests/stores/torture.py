"""Cuts a process that changes a catalog at random moments, and checks after each cut that nothing is lost or undone.

python tests/stores/torture.py CUTS. The process writes down what it is about to do and what is done; it upserts,
deletes, optimizes with the index, and switches to a new table. Another process reads and searches all the time. What is
old is dropped after seconds instead of an hour. At last, `Catalog.finish` alone is cut at each of its lines.
"""

import contextlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import FrameType

import numpy as np
import pyarrow as pa

from mlcl_cli.stores import lance, lance_index
from mlcl_cli.stores.conditions import Condition
from mlcl_cli.stores.lance import LanceCatalog
from mlcl_cli.stores.store import FIELD_PREFIX, Store, TableInfo, Vectors

DIMENSION, IDS, BATCH = 16, 5_000, 400
FIELDS = pa.schema({"edition": pa.int64(), "group": pa.string()})
EDITION, GROUP = FIELD_PREFIX + "edition", FIELD_PREFIX + "group"
COLUMNS = ("id", "position", "vector", EDITION)

Rows = dict[int, int]  # an id's number, and which edition of it
INITIAL: Rows = dict.fromkeys(range(IDS), 0)


def info(encoder: str) -> TableInfo:
    return TableInfo(encoder, "clip", DIMENSION, "fp16", FIELDS)


def vector(number: int, edition: int) -> Vectors:
    """What the row holds: it follows from its id and edition, so that no mixture goes unnoticed."""
    drawn = np.random.default_rng([number, edition]).standard_normal(DIMENSION)
    return (drawn / np.linalg.norm(drawn)).astype(np.float16).astype(np.float32)


def as_table(rows: Rows, encoder: str) -> pa.Table:
    made = [
        {
            "id": f"id {number}",
            "product": "p",
            "image": "i",
            "position": number,
            "norm": 1.0,
            "thumbnail": b"t",
            "image_fingerprint": str(edition),
            "fields_fingerprint": "f",
            "vector": vector(number, edition).tolist(),
            EDITION: edition,
            GROUP: f"g{number % 10}",
        }
        for number, edition in rows.items()
    ]
    return pa.Table.from_pylist(made, schema=info(encoder).schema())


def contents(store: Store) -> Rows:
    """All rows; an id must not come twice, and a row must be whole."""
    found: Rows = {}
    for batch in store.fetch(COLUMNS):
        for row in batch.to_pylist():
            number = int(row["id"].removeprefix("id "))
            assert number not in found, f"{row['id']} comes twice"
            assert number == row["position"]
            assert (vector(number, row[EDITION]) == np.float32(row["vector"])).all()
            found[number] = row[EDITION]
    return found


@dataclass
class Expected:
    """What a catalog must hold: the current table and its rows, and what the change under way may make of them."""

    encoder: str | None = None
    rows: Rows = field(default_factory=dict)
    pending: "Expected | None" = None

    def begin(self, change: dict[str, object]) -> None:
        after = Expected(self.encoder, dict(self.rows))
        if change["do"] == "switch":
            after.encoder, after.rows = str(change["encoder"]), after.rows or dict(INITIAL)
        elif change["do"] == "upsert":
            after.rows |= {number: int(str(change["edition"])) for number in change["numbers"]}  # type: ignore[attr-defined]
        elif change["do"] == "delete":
            for number in change["numbers"]:  # type: ignore[attr-defined]
                after.rows.pop(number, None)
        self.pending = after

    def done(self) -> None:
        assert self.pending is not None
        self.encoder, self.rows, self.pending = self.pending.encoder, self.pending.rows, None

    def check(self, catalog: LanceCatalog) -> None:
        """Compare with what a fresh reader finds, and take over whether the last change came through."""
        store = catalog.current()
        found = None if store is None else (store.info.encoder, contents(store))
        states = [self] if self.pending is None else [self, self.pending]
        (came,) = [state for state in states if (state.encoder and (state.encoder, state.rows)) == found][:1] or [None]
        assert came is not None, f"{found and found[0]} instead of {[state.encoder for state in states]}: " + (
            str([sorted(set(found[1].items()) ^ set(state.rows.items()))[:10] for state in states]) if found else ""
        )
        self.encoder, self.rows, self.pending = came.encoder, came.rows, None
        if store is not None:
            sample = random.sample(sorted(self.rows), 20)
            queries = np.stack([vector(number, self.rows[number]) for number in sample])
            hits = store.search(queries, 5)
            assert {hit.id for found in hits for hit in found} <= {f"id {number}" for number in self.rows}
            assert sum(found[0].id == f"id {number}" for number, found in zip(sample, hits, strict=True)) >= 18


def write(folder: Path, seed: int) -> None:
    """The process that is cut: changes the catalog until then, and says so."""
    draw, catalog = random.Random(seed), LanceCatalog(folder)
    lance.KEPT, lance.GRACE = timedelta(seconds=15), timedelta(seconds=1)  # readers are 5 seconds behind
    lance_index.FEWEST_ROWS = IDS // 2

    @contextlib.contextmanager
    def said(do: str, **details: object) -> Iterator[None]:
        print(json.dumps({"do": do, **details}), flush=True)
        yield
        print(json.dumps({"done": do}), flush=True)

    def switch(rows: Rows) -> Store:
        encoder = f"e{draw.getrandbits(64):016x}"
        with said("switch", encoder=encoder):
            store = catalog.create(info(encoder))
            for start in range(0, IDS, 2_000):
                store.upsert(as_table({n: e for n, e in rows.items() if start <= n < start + 2_000}, encoder))
            catalog.finish(encoder, 0, 1)
        return store

    opened = catalog.current()
    print(json.dumps({"ready": True}), flush=True)
    store = switch(INITIAL) if opened is None else opened
    while True:
        numbers = draw.sample(range(IDS), draw.randint(1, BATCH))
        kind = draw.choices(["upsert", "delete", "optimize", "switch"], [20, 12, 2, 1])[0]
        if kind == "upsert":
            edition = draw.getrandbits(40)
            with said("upsert", numbers=numbers, edition=edition):
                store.upsert(as_table(dict.fromkeys(numbers, edition), store.info.encoder))
        elif kind == "delete":
            with said("delete", numbers=numbers[: BATCH // 4]):
                store.delete([f"id {number}" for number in numbers[: BATCH // 4]])
        elif kind == "optimize":
            with said("optimize"):
                store.optimize(index=draw.random() < 0.7)
        else:
            store = switch(contents(store))


def read(folder: Path) -> None:
    """Reads and searches until standard input ends, but at least once; any error ends it. Prints how often."""
    catalog, draw, done = LanceCatalog(folder), random.Random(0), Counter[str]()
    store = None
    while not done["counted"] or not select.select([sys.stdin], [], [], 0)[0]:
        if store is None or draw.random() < 0.2:
            store = catalog.current()
            done["opened"] += store is not None
        if store is None:
            time.sleep(0.05)
            continue
        found = store.search(np.stack([vector(draw.randrange(IDS), 0)]), 10, [Condition("group", "=", "g3")])
        assert len({hit.id for hit in found[0]}) == 10
        done["searched"] += 1
        ids = [id_ for batch in store.fetch(["id"]) for id_ in batch.column("id").to_pylist()]
        assert len(ids) == len(set(ids)) > IDS // 2
        done["fetched"] += 1
        assert store.count([Condition("edition", ">=", 0)]) > IDS // 2
        done["counted"] += 1
    print(json.dumps(done), flush=True)


def cut(command: list[str], seconds: float, expected: Expected) -> str:
    """Run the writer for so long, kill it, and say in which change it was."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert json.loads(writer.stdout.readline()) == {"ready": True}
        time.sleep(seconds)
        assert writer.poll() is None, "the writer failed"
        writer.send_signal(signal.SIGKILL)
        under_way = "nothing"
        for change in map(json.loads, writer.stdout):
            if "done" in change:
                expected.done()
                under_way = "nothing"
            else:
                expected.begin(change)
                under_way = str(change["do"])
    return under_way


def finish_cut_at(folder: Path, encoder: str, steps: int) -> bool:
    """Finish a table in a fork of this process, which dies at a line; False if it has not so many."""

    def die(_frame: FrameType, event: str, _argument: object) -> object:
        nonlocal steps
        steps -= event == "line"
        if steps < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return die

    child = os.fork()
    if not child:
        sys.settrace(die)  # type: ignore[arg-type]
        LanceCatalog(folder).finish(encoder, 0, 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), "finish failed"
    return code != 0


def finish(folder: Path, every: int) -> None:
    """Cut the switch from the table "e0" to "e1", which also removes "old", at every so manieth line.

    Prints how many cuts left which table current. This process must not have loaded LanceDB, which no fork survives.
    """
    import filelock  # noqa: F401

    saved, left, steps = folder.with_name("saved"), Counter[str](), 0
    shutil.copytree(folder, saved)
    tables = files_of(folder)
    while True:
        shutil.rmtree(folder)
        shutil.copytree(saved, folder)
        was_cut = finish_cut_at(folder, "e1", steps)
        current = json.loads((folder / "catalog.json").read_text())["current"]
        assert current in ("e0", "e1")
        assert was_cut or (current == "e1" and not (folder / "old.lance").exists())
        assert files_of(folder) == tables, "neither table was touched"
        LanceCatalog(folder).finish("e1", 0, 1)
        assert json.loads((folder / "catalog.json").read_text())["current"] == "e1"
        assert not (folder / "old.lance").exists(), "the next one removes what this one left"
        if not was_cut:
            break
        left[current] += 1
        steps += every
    print(json.dumps(left), flush=True)


def files_of(folder: Path) -> dict[Path, int]:
    """The sizes of all files of the tables that are or become current."""
    return {path: path.stat().st_size for name in ("e0", "e1") for path in (folder / f"{name}.lance").rglob("*.*")}


def cut_finishing(folder: Path, every: int) -> Counter[str]:
    """Make a catalog of three tables, cut their switch as `finish` does, and read the one that is current then."""
    catalog, rows = LanceCatalog(folder), dict.fromkeys(range(200), 0)
    for encoder in ("old", "e0", "e1"):
        catalog.create(info(encoder)).upsert(as_table(rows, encoder))
        if encoder != "e1":
            catalog.finish(encoder, 0, 1)
    state = folder / "catalog.json"
    state.write_text(state.read_text().replace('"old":', '"old":-'))  # long ago
    command = [sys.executable, __file__, str(folder), "finish", str(every)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    current = LanceCatalog(folder).current()
    assert current is not None
    assert (current.info.encoder, contents(current)) == ("e1", rows)
    return Counter(json.loads(done.stdout))


def torture(cuts: int, seed: int, report: bool = False) -> Counter[str]:
    """Cut `cuts` times; counts the changes that were under way. Raises AssertionError at the first loss."""
    draw, met = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="store-torture-") as temporary, contextlib.ExitStack() as stack:
        folder, expected = Path(temporary) / "catalog", Expected()
        command = [sys.executable, __file__, str(folder)]
        reader = subprocess.Popen([*command, "read"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(reader.kill)
        while met.total() < cuts or expected.encoder is None:
            met[cut([*command, "write", str(draw.getrandbits(32))], draw.uniform(0, 3), expected)] += 1
            expected.check(LanceCatalog(folder))
            assert reader.poll() is None, "the reader failed"
            if report:
                print(f"{met.total()} of {cuts}: {dict(met)}; {len(expected.rows):,} rows", flush=True)
        reads, _ = reader.communicate()
        assert reader.returncode == 0, "the reader failed"
        if report:
            print(f"the reader: {reads.strip()}", flush=True)
        switched = cut_finishing(Path(temporary) / "switched", 1 if report else 150)
        assert switched.keys() == {"e0", "e1"}
        if report:
            print(f"cuts of the switch alone, by the table that was current then: {dict(switched)}", flush=True)
    return met


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(torture(int(sys.argv[1]), seed=int(time.time()), report=int(sys.argv[1]) > 10))
    elif sys.argv[2] == "read":
        read(Path(sys.argv[1]))
    else:
        {"write": write, "finish": finish}[sys.argv[2]](Path(sys.argv[1]), int(sys.argv[3]))
