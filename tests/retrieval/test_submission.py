"""CIRR's submission files: golden lists, and the server's rules."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mlcl_cli.data.protocols import CIRR_VAL
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import ComposedSet, Evaluation, text_query
from mlcl_cli.retrieval.submission import check, make_submissions


def composed(triplets: Sequence[Triplet], names: Sequence[str], queries: Tensor, gallery: Tensor) -> ComposedSet:
    """Given queries (Q, d) as a model's: the caption of each triplet is its pair, the query its text feature."""
    split = Split("cirr", "test1", (QuerySet("test1", tuple(triplets), tuple(names)),), {})
    evaluation = Evaluation(split, CIRR_VAL)
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
    submissions = make_submissions(composed(triplets, case["index_names"], queries, gallery))
    assert submissions["recall"] == expected["submission_recall"]
    assert submissions["recall_subset"] == expected["submission_recall_subset"]


def test_invalid_submissions_are_refused() -> None:
    valid = {"version": "rc2", "metric": "recall_subset", "1": ["a", "b", "c"]}
    assert check("recall_subset", valid, ["1"]).endswith(b"\n")
    for invalid in (
        valid | {"version": "rc1"},
        valid | {"metric": "recall"},
        valid | {"1": ["a", "b"]},
        valid | {"1": ["a", "b", "b"]},
        valid | {"2": ["a", "b", "c"]},
        {"version": "rc2", "metric": "recall_subset"},
    ):
        with pytest.raises(DataError):
            check("recall_subset", invalid, ["1"])


def test_submissions_over_the_server_limit_are_refused() -> None:
    submission = {"version": "rc2", "metric": "recall_subset", "1": ["a" * 5_000_000, "b", "c"]}
    with pytest.raises(DataError, match=r"has 5,000,\d\d\d bytes"):
        check("recall_subset", submission, ["1"])


@pytest.mark.parametrize(("images", "metric"), [(60, "3 different"), (50, "50 different")])
def test_too_few_images_for_the_server_are_an_error(images: int, metric: str) -> None:
    features = torch.eye(images)
    names = [str(number) for number in range(images)]
    triplet = Triplet("0", None, ("1",), 1, ("0", "1", "2"))
    with pytest.raises(DataError, match=f"needs {metric} images for pair 1"):
        make_submissions(composed([triplet], names, features[:1], features))
