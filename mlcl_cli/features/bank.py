"""Features on disk: whatever is frozen is computed once, and never used with a partner it does not belong to."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mlcl_cli.files import write_tensors
from mlcl_cli.inputs import parse_json
from mlcl_cli.reporting import Reporter

FORMAT = "mlcl features 1"


@dataclass(frozen=True)
class Table:
    """Raw features by name: `values` (N, d) fp32 on the device, `rows` the row of each name."""

    rows: Mapping[str, int]
    values: Tensor

    def index(self, names: Sequence[str]) -> Tensor:
        """Row numbers of `names`, int64, on the device."""
        return torch.tensor([self.rows[name] for name in names], dtype=torch.int64).to(self.values.device)

    def of(self, names: Sequence[str]) -> Tensor:
        """Features of `names`, (len(names), d)."""
        return self.values.index_select(0, self.index(names))


@dataclass
class Bank:
    """A file of features that grows: each name has a row and a stamp, which tells when its source has changed.

    `key` is what determines the features (encoder weights, transform, precision); it also names the file.
    """

    path: Path | None
    key: Mapping[str, str]
    stamps: dict[str, str] = field(default_factory=dict)
    values: Tensor | None = None

    @staticmethod
    def path_of(folder: Path, key: Mapping[str, str]) -> Path:
        """Where the bank for `key` lies, or will."""
        name = hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]
        return folder / f"{key['kind']}-{name}.safetensors"

    @classmethod
    def open(cls, folder: Path, key: Mapping[str, str], reporter: Reporter) -> Self:
        """The bank for `key` in `folder`: as it was saved, or empty where there is none or it is not sound."""
        bank = cls(cls.path_of(folder, key), key)
        path = cls.path_of(folder, key)
        if path.exists() and (problem := bank._load(path)):
            reporter.warn(f"{path}: {problem}; it is built anew")
            bank.stamps, bank.values = {}, None
        return bank

    def missing(self, stamps: Mapping[str, str]) -> list[str]:
        """Names whose features are not there, or are of a source that has changed."""
        return [name for name, stamp in stamps.items() if self.stamps.get(name) != stamp]

    def add(self, stamps: Mapping[str, str], features: Tensor) -> None:
        """Adds rows (len(stamps), d); a name that was there gets its new row."""
        kept = [row for row, name in enumerate(self.stamps) if name not in stamps]
        names = [*(name for name in self.stamps if name not in stamps), *stamps]
        self.stamps = {name: stamps.get(name, self.stamps.get(name, "")) for name in names}
        rows = features.detach().float().cpu()
        self.values = rows if self.values is None else torch.cat([self.values[kept], rows])

    def save(self) -> None:
        """Writes the bank whole or not at all; one without a path is in memory alone."""
        if self.values is None or self.path is None:
            return
        values = self.values.contiguous()
        description = {
            "format": FORMAT,
            "key": json.dumps(dict(self.key), sort_keys=True),
            "stamps": (stamps := json.dumps(self.stamps)),
            "sha256": _digest(values, stamps),
        }
        write_tensors(self.path, {"features": values}, description)

    def table(self, names: Sequence[str], device: torch.device) -> Table:
        """The features of `names`, row by row in that order, on `device`."""
        rows = {name: row for row, name in enumerate(self.stamps)}
        picked = torch.tensor([rows[name] for name in names], dtype=torch.int64)
        values = torch.empty(0, 0) if self.values is None else self.values.index_select(0, picked)
        return Table({name: row for row, name in enumerate(names)}, values.to(device))

    def _load(self, path: Path) -> str | None:
        """Reads the file; returns what is wrong with it, if anything is."""
        try:
            with safe_open(path, framework="pt") as file:
                description = file.metadata() or {}
                if description.get("format") != FORMAT or parse_json(description["key"]) != dict(self.key):
                    return "is the bank of something else"
                self.values = file.get_tensor("features")
                self.stamps = parse_json(description["stamps"])
                digest = _digest(self.values, description["stamps"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            return f"cannot be read ({error})"
        if len(self.values) != len(self.stamps) or digest != description.get("sha256"):
            return "does not match its checksum"
        return None


def _digest(values: Tensor, stamps: str) -> str:
    digest = hashlib.sha256(f"{tuple(values.shape)}{stamps}".encode())
    digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()
