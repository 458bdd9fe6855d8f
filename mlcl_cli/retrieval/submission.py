"""The two files that CIRR's test server takes (METHOD.md, Section 9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mlcl_cli.atomic_files import to_json, write_files
from mlcl_cli.errors import DataError, some
from mlcl_cli.retrieval.evaluation import ComposedSet
from mlcl_cli.retrieval.ranking import PAD_INDEX

VERSION = "rc2"
MAX_BYTES = 5_000_000
LENGTHS = {"recall": 50, "recall_subset": 3}  # images that each metric's list holds
Submission = Mapping[str, object]


def make_submissions(queries: ComposedSet) -> dict[str, Submission]:
    """The `recall` and the `recall_subset` submission.

    Raises DataError where the server's rules cannot be met (a gallery of fewer than 51 images, an image set of fewer
    than four).
    """
    names, pairs = queries.part.gallery, [str(triplet.pair_id) for triplet in queries.part.triplets]
    submissions: dict[str, Submission] = {}
    for metric, length in LENGTHS.items():
        top = queries.top(length, among_members=metric == "recall_subset")
        answers = {
            pair: [names[row] for row in rows if row != PAD_INDEX]
            for pair, rows in zip(pairs, top.rows.tolist(), strict=True)
        }
        submissions[metric] = {"version": VERSION, "metric": metric, **answers}
        check(metric, submissions[metric], pairs)
    return submissions


def check(metric: str, submission: Submission, pairs: Sequence[str]) -> bytes:
    """The file's bytes, if the server would accept them.

    Raises DataError for a wrong version or metric, a missing or unknown pair, a list of the wrong length or with
    duplicates, and more than 5 MB.
    """
    answers = dict(submission)
    if (answers.pop("version", None), answers.pop("metric", None)) != (VERSION, metric):
        raise DataError(f"the {metric} submission has no valid version or metric", remedy="This is a bug; report it")
    if answers.keys() != set(pairs):
        difference = some(sorted(answers.keys() ^ set(pairs)))
        raise DataError(
            f"the {metric} submission has missing or unknown pairs: {difference}", remedy="Answer every query"
        )
    length = LENGTHS[metric]
    for pair, images in answers.items():
        if not isinstance(images, list) or len(images) != length or len(set(images)) != length:
            raise DataError(
                f"the {metric} submission needs {length} different images for pair {pair}",
                remedy=f"The server rejects other lists; the gallery must hold more than {length} images",
            )
    content = to_json(submission)
    if len(content) > MAX_BYTES:
        raise DataError(f"the {metric} submission has {len(content):,} bytes", remedy="The server accepts at most 5 MB")
    return content


def write_submissions(folder: Path, name: str, submissions: Mapping[str, Submission]) -> list[Path]:
    """Write both files or neither, and return their paths, `recall` first."""
    contents = {
        folder / f"{metric}_submission_{name}.json": to_json(content) for metric, content in submissions.items()
    }
    write_files(contents)
    return list(contents)
