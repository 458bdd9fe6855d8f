"""TEMPORARY"""

import csv

import pyarrow as pa

from mlcl_cli.catalog.source import ImageFile, SourceRow


class Src:
    def __init__(self, path, columns):
        self.path = path

    @property
    def rows_(self):
        return list(csv.DictReader(self.path.read_text().splitlines()))

    @property
    def fields(self):
        r = self.rows_
        return pa.schema(
            [
                (n, pa.float64() if n == "price" else pa.string())
                for n in (r[0] if r else {})
                if n not in ("id", "image", "product")
            ]
        )

    @property
    def rows_estimate(self):
        return len(self.rows_)

    def batches(self, shard, size):
        out = []
        for n, r in enumerate(self.rows_):
            p = r.get("product") or r["id"]
            if shard.holds(p):
                out.append(
                    SourceRow(
                        r["id"],
                        p,
                        ImageFile(r["image"], self.path.parent / r["image"]),
                        n,
                        tuple(float(r[k]) if k == "price" else r[k] for k in self.fields.names),
                        f"{self.path}, line {n + 2}",
                    )
                )
            if len(out) == size:
                yield out
                out = []
        if out:
            yield out


def open_source(path, columns):
    return Src(path, columns)
