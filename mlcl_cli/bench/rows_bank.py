"""Rows of a large feature bank: adding a row, and looking a few up."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mlcl_cli.bench.measure import Row
from mlcl_cli.bench.synthetic_data import SyntheticData
from mlcl_cli.features.bank import Bank
from mlcl_cli.features.shards import VERIFIED

FEATURES = 640
LOOKED_UP = 5
WRITTEN_AT_ONCE = 10_000
KEY = {"kind": "images", "encoder": "bench"}
CPU = torch.device("cpu")


def bank_growth(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """A row added to a bank of many, and a few looked up, beside one safetensors file that is written and read whole.

    Left out where the disk has no room for both.
    """
    count = material.sizes.banked
    if 3 * 4 * FEATURES * count > shutil.disk_usage(material.folder).free:
        return
    folder = Path(tempfile.mkdtemp(dir=material.folder))
    bank, other = _filled(folder / "ours", count), BaselineBank(folder / "plain", count)
    wanted = [_name(row) for row in range(0, count, max(1, count // LOOKED_UP))][:LOOKED_UP]
    found: dict[str, Tensor] = {}

    def add() -> None:
        bank.add({f"added {len(added)}": "1"}, torch.zeros(1, FEATURES))
        added.append(1)

    def look_up() -> None:
        VERIFIED.clear()  # as in a new process
        again = Bank(folder / "ours", KEY)
        assert not again.missing(dict.fromkeys(wanted, "1"))
        found["ours"] = again.table(dict.fromkeys(wanted, "1"), CPU).values

    def plain_look_up() -> None:
        found["plain"] = other.look_up(wanted)

    added: list[int] = []
    timings = material.machine.beside(add, other.add, repeats)
    missing = bank.missing({f"added {number}": "1" for number in range(len(added))})
    problem = f"{len(missing)} added rows are missing" if missing else None
    yield Row(f"add a row to {count:,}", "row", (1, 1), *timings, disagreement=problem)
    timings = material.machine.beside(look_up, plain_look_up, repeats)
    problem = None if torch.equal(found["ours"], found["plain"]) else "features differ"
    yield Row(f"open {count:,}, look up {LOOKED_UP}", "time", (1, 1), *timings, disagreement=problem)
    shutil.rmtree(folder)


class BaselineBank:
    """One safetensors file, rewritten for every row, and its names as JSON."""

    def __init__(self, path: Path, count: int) -> None:
        path.mkdir(parents=True)
        self._features, self._names = path / "features.safetensors", path / "names.json"
        self._rows = {_name(row): row for row in range(count)}
        self._values = torch.cat([*_features(count)])
        self._save()

    def add(self) -> None:
        """Adds a row and writes everything."""
        self._rows[f"added {len(self._rows)}"] = len(self._values)
        self._values = torch.cat([self._values, torch.zeros(1, FEATURES)])
        self._save()

    def look_up(self, names: list[str]) -> Tensor:
        """Features of `names` (len(names), d), from the files."""
        rows = json.loads(self._names.read_text(encoding="utf-8"))
        return load_file(self._features)["features"][[rows[name] for name in names]]

    def _save(self) -> None:
        save_file({"features": self._values}, self._features)
        self._names.write_text(json.dumps(self._rows), encoding="utf-8")


def _filled(folder: Path, count: int) -> Bank:
    bank = Bank(folder, KEY)
    first = 0
    for features in _features(count):
        bank.add({_name(first + row): "1" for row in range(len(features))}, features)
        first += len(features)
    return bank


def _features(count: int) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(0)
    for first in range(0, count, WRITTEN_AT_ONCE):
        yield torch.randn(min(WRITTEN_AT_ONCE, count - first), FEATURES, generator=draw)


def _name(row: int) -> str:
    return f"products/{row:09}.jpg"


ROWS: tuple[Callable[[SyntheticData, int], Iterator[Row]], ...] = (bank_growth,)
