"""FashionIQ's four protocols against an oracle that reads the annotation files and sorts, one query at a time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlcl_cli.data.datasets import named_protocol
from mlcl_cli.data.fashioniq import CATEGORIES, FASHIONIQ
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import Evaluation

CUTOFFS = (10, 50)
PROTOCOLS = {
    "fashioniq-original": ("original", False),
    "fashioniq-original-noref": ("original", True),
    "fashioniq-val": ("val", False),
    "fashioniq-val-noref": ("val", True),
}


@st.composite
def annotations(draw: st.DrawFn) -> dict[str, Any]:
    """The JSON files of a validation split; some references are listed by the training split alone."""
    files: dict[str, Any] = {}
    for category in CATEGORIES:
        names = [f"{category}{number}" for number in range(draw(st.integers(3, 70)))]
        listed = names[: draw(st.integers(2, len(names)))]
        triplets = draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(listed)), min_size=1, max_size=6))
        files[f"image_splits/split.{category}.val.json"] = draw(st.permutations(listed))
        files[f"image_splits/split.{category}.train.json"] = names
        files[f"captions/cap.{category}.val.json"] = [
            {"candidate": reference, "target": target, "captions": ["is red", "is long"]}
            for reference, target in triplets
        ]
    return files


def oracle(
    files: dict[str, Any], gallery_kind: str, removed: bool, scores: dict[tuple[str, int, str], int]
) -> dict[str, float]:
    """The metrics as their papers define them. `scores` holds a query's score of each image; ties rank by place."""
    figures: dict[str, float] = {}
    for category in CATEGORIES:
        triplets = files[f"captions/cap.{category}.val.json"]
        gallery = list(files[f"image_splits/split.{category}.val.json"])
        if gallery_kind == "val":
            used = [name for triplet in triplets for name in (triplet["candidate"], triplet["target"])]
            gallery = [name for name in gallery if name in used]
            gallery += [name for name in dict.fromkeys(used) if name not in gallery]
        for k in CUTOFFS:
            hits = 0
            for number, triplet in enumerate(triplets):
                ranked = sorted(gallery, key=lambda name: -scores[category, number, name])
                if removed and triplet["candidate"] in ranked:
                    ranked.remove(triplet["candidate"])
                hits += triplet["target"] in ranked[:k]
            figures[f"{category}/recall@{k}"] = 100 * hits / len(triplets)
    for k in CUTOFFS:
        figures[f"average/recall@{k}"] = sum(figures[f"{category}/recall@{k}"] for category in CATEGORIES) / 3
    figures["average/recall"] = sum(figures[f"average/recall@{k}"] for k in CUTOFFS) / 2
    return figures


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(files=annotations(), seed=st.integers(0, 10**6))
def test_the_four_protocols_equal_the_oracle(
    files: dict[str, Any], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("fashioniq")
    for name, value in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    generator = torch.Generator().manual_seed(seed)
    names = [name for category in CATEGORIES for name in files[f"image_splits/split.{category}.train.json"]]
    # Few distinct features: most scores tie, and the product of small integers is exact.
    images = FeatureTable({name: row for row, name in enumerate(names)}, _integers(len(names), generator))
    ids = [
        (category, number)
        for category in CATEGORIES
        for number in range(len(files[f"captions/cap.{category}.val.json"]))
    ]
    rows = {f"{category}/{number}": row for row, (category, number) in enumerate(ids)}
    queries = FeatureTable(rows, _integers(len(ids), generator))
    products = (queries.values @ images.values.T).tolist()
    scores = {(*query, name): int(products[row][images.rows[name]]) for row, query in enumerate(ids) for name in names}
    for name, (gallery, removed) in PROTOCOLS.items():
        _, protocol = named_protocol(name, FASHIONIQ)
        evaluation = Evaluation(FASHIONIQ.load(root, "val", protocol), protocol)
        ranks = {part.part.name: part.rank() for part in evaluation.given(images, queries)}
        assert evaluation.figures(ranks).metrics == pytest.approx(oracle(files, gallery, removed, scores)), name


def _integers(count: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(-1, 2, (count, 2), generator=generator).float()


def test_these_are_all_protocols_of_fashioniq() -> None:
    assert [protocol.name for protocol in FASHIONIQ.protocols] == [*PROTOCOLS]


@pytest.fixture
def split_files(tmp_path: Path) -> Path:
    """One triplet a category: its reference scores highest, its target second."""
    for category in CATEGORIES:
        for name, value in (
            (f"image_splits/split.{category}.val.json", [f"{category}{number}" for number in range(12)]),
            (
                f"captions/cap.{category}.val.json",
                [{"candidate": f"{category}0", "target": f"{category}10", "captions": ["is red", "is long"]}],
            ),
        ):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(json.dumps(value))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "recall_at_10"),
    [
        ("fashioniq-original", 0.0),  # all 12 images tie, and the target is the eleventh
        ("fashioniq-original-noref", 100.0),  # without the reference, it is the tenth
        ("fashioniq-val", 100.0),
        ("fashioniq-val-noref", 100.0),
    ],
)
def test_gallery_and_reference_make_the_difference(split_files: Path, name: str, recall_at_10: float) -> None:
    _, protocol = named_protocol(name, FASHIONIQ)
    evaluation = Evaluation(FASHIONIQ.load(split_files, "val", protocol), protocol)
    gallery = [f"{category}{number}" for category in CATEGORIES for number in range(12)]
    images = FeatureTable({name: row for row, name in enumerate(gallery)}, torch.ones(len(gallery), 1))
    queries = FeatureTable({f"{category}/0": row for row, category in enumerate(CATEGORIES)}, torch.ones(3, 1))
    ranks = {part.part.name: part.rank() for part in evaluation.given(images, queries)}
    assert evaluation.figures(ranks).metrics["average/recall@10"] == recall_at_10
