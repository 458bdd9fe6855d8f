"""The two files that CIRR's test server takes (METHOD.md, Section 9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from mlcl_cli.atomic_files import to_json, write_files
from mlcl_cli.data.records import Triplet
from mlcl_cli.errors import DataError
from mlcl_cli.retrieval.ranking import PAD_INDEX, best_rows

# The test server's rules: METHOD.md, Section 9.
VERSION = "rc2"
MOST_BYTES = 5_000_000
RECALL_LENGTH, SUBSET_LENGTH = 50, 3
Submission = Mapping[str, object]


def make_submissions(
    triplets: Sequence[Triplet], names: Sequence[str], queries: Tensor, gallery: Tensor
) -> dict[str, Submission]:
    """The `recall` and the `recall_subset` object for unit `queries` (Q, d) over the unit `gallery` (G, d).

    `names` are the gallery's, row by row. The reference is removed from both. Raises DataError where the server's
    rules cannot be met (a gallery of fewer than 51 images, an image set of fewer than four).
    """
    import torch

    row = {name: number for number, name in enumerate(names)}
    excluded = torch.tensor([row[triplet.reference] for triplet in triplets])
    widest = max(len(triplet.members) for triplet in triplets)
    members = torch.full((len(triplets), max(1, widest)), PAD_INDEX)
    for number, triplet in enumerate(triplets):
        members[number, : len(triplet.members)] = torch.tensor([row[name] for name in triplet.members])
    lists = {
        "recall": best_rows(queries, gallery, RECALL_LENGTH, excluded=excluded),
        "recall_subset": best_rows(queries, gallery, SUBSET_LENGTH, excluded=excluded, members=members),
    }
    submissions = {metric: _submission(metric, triplets, names, rows) for metric, rows in lists.items()}
    for metric, submission in submissions.items():
        check(metric, submission, [str(triplet.pair_id) for triplet in triplets])
    return submissions


def check(metric: str, submission: Submission, pairs: Sequence[str]) -> bytes:
    """The file's bytes, if the server would accept them.

    Raises DataError for a wrong head, a missing or unknown pair, a list of wrong length or with a name twice,
    and more than 5 MB.
    """
    if submission.get("version") != VERSION or submission.get("metric") != metric:
        raise DataError(f"the {metric} submission lacks its version or metric", remedy="This is a bug; report it")
    length = RECALL_LENGTH if metric == "recall" else SUBSET_LENGTH
    answers = {key: value for key, value in submission.items() if key not in ("version", "metric")}
    if answers.keys() != set(pairs):
        lacking = sorted(set(pairs) - answers.keys())
        raise DataError(f"the {metric} submission lacks pairs {lacking[:4]}", remedy="Every pair must be answered")
    for pair, ranked in answers.items():
        if not isinstance(ranked, list) or len(ranked) != length or len(set(ranked)) != length:
            raise DataError(
                f"the {metric} submission needs {length} different images for pair {pair}",
                remedy=f"The server refuses other lists; the gallery must hold more than {length} images",
            )
    content = to_json(submission)
    if len(content) > MOST_BYTES:
        raise DataError(f"the {metric} submission has {len(content):,} bytes", remedy="The server takes 5 MB at most")
    return content


def write_submissions(folder: Path, name: str, submissions: Mapping[str, Submission]) -> list[Path]:
    """Writes both files or neither; returns their paths, recall first."""
    paths = [folder / f"{metric}_submission_{name}.json" for metric in submissions]
    contents = [to_json(submission) for submission in submissions.values()]
    write_files(dict(zip(paths, contents, strict=True)))
    return paths


def _submission(metric: str, triplets: Sequence[Triplet], names: Sequence[str], rows: Tensor) -> Submission:
    ranked = {
        str(triplet.pair_id): [names[row] for row in best if row != PAD_INDEX]
        for triplet, best in zip(triplets, rows.tolist(), strict=True)
    }
    return {"version": VERSION, "metric": metric, **ranked}
