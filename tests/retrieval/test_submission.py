"""The submission files of CIRR and CIRCO: golden lists, a naive sort, and the servers' rules."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import ComposedSet, Evaluation, text_query
from mlcl_cli.retrieval.submission import checked, make_answers

CIRR, CIRCO = DATASETS["cirr"].submission, DATASETS["circo"].submission
assert CIRR
assert CIRCO


def composed(
    triplets: Sequence[Triplet], names: Sequence[str], queries: Tensor, gallery: Tensor, dataset: str = "cirr"
) -> ComposedSet:
    """Given queries (Q, d) as a model's: the caption of each triplet is its pair, the query its text feature."""
    split = Split(dataset, "test", (QuerySet("test", tuple(triplets), tuple(names)),), {})
    evaluation = Evaluation(split, DATASETS[dataset].protocol())
    images = FeatureTable({name: row for row, name in enumerate(names)}, gallery)
    texts = FeatureTable({str(triplet.pair_id): row for row, triplet in enumerate(triplets)}, queries)
    (own,) = evaluation.compose(images, texts, text_query)
    return own


def test_submission_equals_the_golden_one(golden: Path) -> None:
    case = json.loads((golden / "metrics_cirr.json").read_text())
    arrays = np.load(golden / "metrics_cirr.npz")
    expected = case["expected"]
    triplets = [
        Triplet(reference, None, (str(pair),), pair, tuple(dict.fromkeys(group)))
        for reference, pair, group in zip(case["reference_names"], expected["pair_ids"], case["groups"], strict=True)
    ]
    queries, gallery = torch.from_numpy(arrays["queries"]), torch.from_numpy(arrays["gallery"])
    recall, recall_subset = make_answers(composed(triplets, case["index_names"], queries, gallery), CIRR)
    assert json.loads(recall) == expected["submission_recall"]
    assert json.loads(recall_subset) == expected["submission_recall_subset"]


def test_circo_answers_with_integers_and_keeps_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    gallery = torch.randint(-2, 3, (70, 3), generator=generator).float()  # many equal scores
    gallery[:, 0] = 1
    names = [str(3 * number + 1) for number in range(70)]
    triplets = [Triplet(names[number], None, (str(number),), number) for number in range(8)]
    queries = torch.nn.functional.normalize(torch.randn(8, 3, generator=generator), dim=-1)
    (content,) = make_answers(composed(triplets, names, queries, gallery, "circo"), CIRCO)
    scores = queries @ torch.nn.functional.normalize(gallery, dim=-1).T
    expected = {
        str(number): [3 * row + 1 for row in sorted(range(70), key=lambda row: (-float(own[row]), row))[:50]]
        for number, own in enumerate(scores)
    }
    assert json.loads(content) == expected
    assert any(triplet.reference in map(str, expected[str(triplet.pair_id)]) for triplet in triplets)


def test_invalid_submissions_are_refused() -> None:
    _, subset = CIRR.files
    known = ["a", "b", "c", "d"]
    assert json.loads(checked({"1": ["a", "b", "c"]}, subset, CIRR, ["1"], known)) == {
        "version": "rc2",
        "metric": "recall_subset",
        "1": ["a", "b", "c"],
    }
    for answers, message in (
        ({"1": ["a", "b"]}, "the recall_subset submission needs 3 different images for pair 1"),
        ({"1": ["a", "b", "b"]}, "the recall_subset submission needs 3 different images for pair 1"),
        ({"1": ["a", "b", "x"]}, "the recall_subset submission has unknown images for pair 1: x"),
        ({"1": ["a", "b", "c"], "2": ["a", "b", "c"]}, "has 1 missing or unknown pair: 2"),
        ({}, "has 1 missing or unknown pair: 1"),
    ):
        with pytest.raises(DataError, match=message):
            checked(answers, subset, CIRR, ["1"], known)  # type: ignore[arg-type]


def test_circo_takes_no_gap_between_its_queries() -> None:
    (file,) = CIRCO.files
    answer: list[str | int] = [*range(50)]
    assert checked({"0": answer, "1": answer}, file, CIRCO, ["1", "0"], answer)
    for keys, message in (
        (["0", "2"], "has no query 1. The server takes all numbers from 0 to 1"),
        (["1"], "no query 0"),
    ):
        with pytest.raises(DataError, match=message):
            checked(dict.fromkeys(keys, answer), file, CIRCO, keys, answer)


def test_submissions_over_the_server_limit_are_refused() -> None:
    _, subset = CIRR.files
    long = "a" * 5_000_000
    with pytest.raises(DataError, match=r"has 5,000,\d\d\d bytes\. The server accepts at most 5 MB"):
        checked({"1": [long, "b", "c"]}, subset, CIRR, ["1"], [long, "b", "c"])


@pytest.mark.parametrize(("images", "metric"), [(60, "3 different"), (50, "50 different")])
def test_too_few_images_for_the_server_are_an_error(images: int, metric: str) -> None:
    features = torch.eye(images)
    names = [str(number) for number in range(images)]
    triplet = Triplet("0", None, ("1",), 1, ("0", "1", "2"))
    with pytest.raises(DataError, match=f"needs {metric} images for pair 1"):
        make_answers(composed([triplet], names, features[:1], features), CIRR)
