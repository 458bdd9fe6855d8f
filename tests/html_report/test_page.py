"""The page's comparisons, and its embedded images."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mlcl_cli.data.records import Triplet
from mlcl_cli.html_report.analysis import Analysis, QueryResult
from mlcl_cli.html_report.page import Comparison, EmbeddedImages, Move, ReportedRun, headlines
from mlcl_cli.html_report.thumbnails import Thumbnail
from mlcl_cli.retrieval.evaluation import Figures
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.listing import StoredRun
from mlcl_cli.runs.summary import BestCheckpoint, RunState, RunSummary

METRICS = {"recall@1": 40.0}
SUMMARY = RunSummary(
    kind=Kind.COMBINER,
    command="train-combiner",
    created="2026-01-31T12:00:00+00:00",
    state=RunState.FINISHED,
    epochs=3,
    epoch=3,
    bests={
        "recall_mean": BestCheckpoint(epoch=2, score=40.0, checkpoint="best.safetensors", metrics={"recall@1": 40.0})
    },
    dataset="shoes",
    protocol="shoes",
    clip=ClipRecord(model="RN50x4", checkpoint=None, fingerprint="0" * 16),
    image=ImageRecord(transform="targetpad", target_ratio=1.25),
    seed=0,
    device="cpu",
    versions={},
)


def reported(
    number: int, ranks: Sequence[int | None] | None, caption: str = "is red", recall: float = 40.0
) -> ReportedRun:
    """A run whose analysis has queries with the given ranks; without one if there are none."""
    analysis = None
    if ranks is not None:
        queries = [
            QueryResult("shoes", Triplet(f"reference{row}", f"target{row}", (caption,)), caption, rank, None, {})
            for row, rank in enumerate(ranks)
        ]
        analysis = Analysis(Figures({"recall@1": recall}, {}, {}), queries, {}, {}, {})
    return ReportedRun(number, listed(number), SUMMARY, analysis=analysis)


def listed(number: int) -> StoredRun:
    run = StoredRun(Path(f"missing/shoes-{number}"), Kind.COMBINER)
    vars(run)["summary"] = SUMMARY  # as if read from its folder
    return run


def ranks_of(moves: Sequence[Move]) -> list[tuple[int, int]]:
    return [(move.before, move.after) for move in moves]


def test_a_comparison_counts_moves_and_lists_the_largest_first() -> None:
    pair = Comparison.of(reported(0, [1, 20, 4, 100, 8, None, 10]), reported(1, [1, 5, 8, 10, 80, 3, 11]))
    assert pair is not None
    assert len(pair.moves) == 6, "an unranked target has not moved"
    assert pair.counts == {"higher": 2, "same": 1, "lower": 3, "entered": 2, "left": 2}
    assert ranks_of(pair.ups(5)) == [(100, 10), (20, 5)]
    assert ranks_of(pair.ups(1)) == [(100, 10)]
    assert ranks_of(pair.downs(5)) == [(8, 80), (4, 8), (10, 11)]
    assert ranks_of(pair.downs(2)) == [(8, 80), (4, 8)]
    assert 'aria-label="2 targets moved up by a power of two or more, 2 down"' in pair.drawing


def test_runs_on_other_queries_or_without_an_analysis_are_not_compared() -> None:
    assert Comparison.of(reported(0, [1]), reported(1, [1], caption="is blue")) is None
    assert Comparison.of(reported(0, [1]), reported(1, None)) is None


def test_only_a_visible_difference_from_the_logged_metrics_counts() -> None:
    assert reported(0, None).difference == 0
    assert reported(0, [1], recall=40.004).difference == 0
    assert reported(0, [1], recall=41.5).difference == 1.5


def test_the_protocol_of_a_run_says_that_its_gallery_is_pruned() -> None:
    pruned = SUMMARY.model_copy(update={"pruned": True})
    older = RunSummary.model_validate(SUMMARY.model_dump() | {"protocol": "shoes (pruned gallery)", "pruned": False})
    assert (older.protocol, older.pruned) == ("shoes", True)
    for summary, label in ((SUMMARY, "shoes"), (pruned, "shoes (pruned gallery)"), (older, "shoes (pruned gallery)")):
        assert ReportedRun(0, listed(0), summary).protocol == label


def test_images_are_embedded_once_and_numbered_by_first_use() -> None:
    requested: list[str] = []
    thumbnail = Thumbnail(1, 1, b"")

    def embed(images: Sequence[tuple[str, Path]]) -> Iterator[Thumbnail | None]:
        for name, _ in images:
            requested.append(name)
            yield None if name == "bad.png" else thumbnail

    embedded = EmbeddedImages(embed)
    paths = [Path("b.png"), Path("a/bad.png"), Path("b.png"), Path("c.png")]
    assert [embedded.number(path) for path in paths] == [0, 1, 0, 2]
    assert list(embedded.thumbnails()) == [(0, thumbnail), (1, None), (2, thumbnail)]
    assert requested == ["b.png", "bad.png", "c.png"]


def test_headlines_are_averages_where_there_are_some() -> None:
    assert headlines({"dress/recall@10": 1.0, "average/recall@10": 1.0}) == ["average/recall@10"]
    assert headlines({"recall@1": 1.0, "arithmetic_mean": 1.0, "harmonic_mean": 1.0}) == ["recall@1", "arithmetic_mean"]
