"""All queries of a data set in a compact form, for the page's script to search and filter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from markupsafe import Markup

from mlcl_cli.atomic_files import to_json
from mlcl_cli.html_report.analysis import TOP, WHOLE, Analysis, kinds_of
from mlcl_cli.seeding import derive_generator

SHOWN = 5  # retrieved images that are pictures in a list of queries


@dataclass(frozen=True)
class Explorer:
    """The queries of an analysis, and the ranks of the same queries by other runs, by name."""

    number: int
    label: str
    analysis: Analysis
    others: Mapping[str, Sequence[int | None]]

    def wanted(self) -> list[Path]:
        """The files of the pictures, those of a random query after another, so that any part of them is fair."""
        count = len(self.analysis.queries)
        order = torch.randperm(count, generator=derive_generator(0, "report", "pictures")).tolist()
        files = (self.analysis.paths.get(name) for number in order for name in self._names(number))
        return [path for path in files if path is not None]

    def as_json(self, pictures: Mapping[Path, int]) -> Markup:
        """The queries by column. An image is its place in `names`, and `pictures` the number of its picture or -1."""
        queries, paths = self.analysis.queries, self.analysis.paths
        places: dict[str, int] = {}

        def place(name: str) -> int:
            return places.setdefault(name, len(places))

        kinds, sets = dict[str, int](), dict[str, int]()
        columns = {
            "label": self.label,
            "set": [sets.setdefault(query.set_name, len(sets)) for query in queries],
            "sets": list(sets),
            "kind": [[kinds.setdefault(kind, len(kinds)) for kind in kinds_of(query.caption)] for query in queries],
            "kinds": list(kinds),
            "caption": [query.caption for query in queries],
            "reference": [place(query.triplet.reference) for query in queries],
            "targets": [[place(name) for name in query.targets] for query in queries],
            "top": [[place(image.name) for image in self.analysis.tops[number]] for number in range(len(queries))],
            "rank": [query.rank for query in queries],
            "parts": {part: [query.part_ranks[part] for query in queries] for part in queries[0].part_ranks},
            "others": self.others,
            "whole": WHOLE,
            "hit": TOP,
            "shown": SHOWN,
            "pictured": sum(
                all(paths.get(name) in pictures for name in self._names(number)) for number in range(len(queries))
            ),
            "names": list(places),
            "pictures": [pictures.get(paths[name], -1) if name in paths else -1 for name in places],
        }
        # Within a script element, only "<" could end it.
        return Markup(to_json(columns).decode().strip().replace("<", "\\u003c"))

    def _names(self, number: int) -> list[str]:
        """The images of a query that a list shows."""
        query = self.analysis.queries[number]
        top = [image.name for image in self.analysis.tops[number][:SHOWN]]
        return [query.triplet.reference, query.targets[0], *top]
