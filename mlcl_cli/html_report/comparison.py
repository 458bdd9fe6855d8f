"""Two runs on the same queries: what moved, and whether the difference is more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from mlcl_cli.errors import DataError
from mlcl_cli.html_report.analysis import TOP, QueryResult
from mlcl_cli.html_report.curves import draw_moves
from mlcl_cli.html_report.reported_run import ReportedRun
from mlcl_cli.retrieval.bootstrap import Difference, compare


@dataclass(frozen=True, slots=True)
class Move:
    """A query whose target is ranked by two runs."""

    query: QueryResult
    before: int
    after: int

    @property
    def ratio(self) -> float:
        return self.after / self.before


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same queries. The moves are sorted by ratio: those up come first."""

    before: ReportedRun
    after: ReportedRun
    moves: Sequence[Move]

    @classmethod
    def of(cls, before: ReportedRun, after: ReportedRun) -> "Comparison | None":
        """The comparison of two runs; None where they were not analyzed on the same queries."""
        if before.analysis is None or after.analysis is None:
            return None
        old, new = before.analysis.queries, after.analysis.queries
        if [(query.set_name, query.triplet) for query in old] != [(query.set_name, query.triplet) for query in new]:
            return None
        pairs = zip(old, new, strict=True)
        moves = [Move(a, a.rank, b.rank) for a, b in pairs if a.rank is not None and b.rank is not None]
        return cls(before, after, sorted(moves, key=lambda move: move.ratio))

    @cached_property
    def difference(self) -> Difference | None:
        """The difference in the deciding metric, with a paired bootstrap; None for too few queries."""
        first, second = self.before.analysis, self.after.analysis
        assert first is not None
        assert second is not None
        try:
            return compare(first.protocol, first.values, second.values)[self.before.metric]
        except DataError:
            return None

    def ups(self, count: int) -> list[Move]:
        """The `count` targets that moved up by the largest ratio."""
        return [move for move in self.moves[:count] if move.ratio < 1]

    def downs(self, count: int) -> list[Move]:
        """The `count` targets that moved down by the largest ratio."""
        return [move for move in self.moves[: -count - 1 : -1] if move.ratio > 1]

    @property
    def counts(self) -> dict[str, int]:
        """How many targets moved each way, and how many entered and left the first TOP."""
        return {
            "higher": sum(move.ratio < 1 for move in self.moves),
            "same": sum(move.ratio == 1 for move in self.moves),
            "lower": sum(move.ratio > 1 for move in self.moves),
            "entered": sum(move.after <= TOP < move.before for move in self.moves),
            "left": sum(move.before <= TOP < move.after for move in self.moves),
        }

    @property
    def drawing(self) -> Markup:
        name = f"moves-{self.before.number}-{self.after.number}"
        return draw_moves(name, [move.before for move in self.moves], [move.after for move in self.moves])
