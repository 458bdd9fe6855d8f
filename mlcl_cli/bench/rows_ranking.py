"""Rows of validation and ranking, on random features of the real sizes."""

import dataclasses
from collections.abc import Iterator

import psutil
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Row
from mlcl_cli.bench.synthetic_data import SyntheticData, numbered_table, random_split
from mlcl_cli.data.datasets import protocol_of
from mlcl_cli.retrieval.evaluation import Evaluation, sum_query
from mlcl_cli.retrieval.ranking import rank_targets

FEATURES = 640
QUERIES = 1000
TITLES = {"cirr": "CIRR", "fashioniq": "FashionIQ dress", "shoes": "Shoes"}


def validations(data: SyntheticData) -> Iterator[Row]:
    """Queries composed, ranked and scored, as after every epoch."""
    for dataset, (queries, gallery) in data.sizes.validation.items():
        yield _validation(data, dataset, queries, gallery)


def _validation(data: SyntheticData, dataset: str, queries: int, gallery: int) -> Row:
    split = random_split(dataset, {dataset: (queries, gallery)})
    # One set of queries, whose recalls are compared: no means over several.
    protocol = dataclasses.replace(protocol_of(dataset), summary=lambda recalls: dict(*recalls.values()))
    evaluation = Evaluation(split, protocol, lambda triplet: triplet.captions[0])
    draw = torch.Generator().manual_seed(1)

    images, texts = (
        numbered_table(names, torch.randn(len(names), FEATURES, generator=draw).to(data.machine.compute.device))
        for names in (split.sets[0].gallery, [triplet.captions[0] for triplet in split.triplets])
    )

    def check(ours: dict[str, float], theirs: dict[str, float]) -> str | None:
        worst = max(abs(ours[key] - value) for key, value in theirs.items())
        return None if worst < 1e-4 else f"recalls differ by {worst:.4f} points"

    return data.machine.compare(
        f"validate {TITLES[dataset]}",
        "query",
        queries,
        lambda: evaluation(images, texts, sum_query).metrics,
        lambda: baseline.validate(split.sets[0], images, texts, protocol),
        check,
    )


def large_gallery(data: SyntheticData) -> Iterator[Row]:
    """A thousand queries against a large gallery; the baseline is the bare matrix product."""
    for size in data.sizes.galleries:
        if 4 * FEATURES * size + 2**30 < 0.8 * _free_memory(data.machine.compute.device):
            yield _large_gallery(data, size)


def _large_gallery(data: SyntheticData, size: int) -> Row:
    device = data.machine.compute.device
    draw = torch.Generator(device).manual_seed(2)
    gallery = torch.empty(size, FEATURES, device=device)
    for part in gallery.split(100_000):
        part.copy_(normalize(torch.randn(part.shape, generator=draw, device=device), dim=-1))
    queries = normalize(torch.randn(QUERIES, FEATURES, generator=draw, device=device), dim=-1)
    targets = torch.randint(size, (QUERIES,), generator=draw, device=device)
    batch_size = QUERIES if 5 * QUERIES * size < _free_memory(device) else 100

    def product() -> Tensor:
        for part in queries.split(batch_size):
            gallery @ part.T
        return torch.empty(0)

    def check(ours: Tensor, _product: Tensor) -> str | None:
        scores = queries[:20] @ gallery.T
        naive = (scores > scores.gather(1, targets[:20, None])).sum(dim=1).cpu() + 1
        worst = int((ours[:20] - naive).abs().max())
        return None if worst <= max(2, size // 100_000) else f"ranks differ by {worst}"  # a product's rounding

    def rank() -> Tensor:
        return rank_targets(queries, gallery, targets).gallery

    row = data.machine.compare(f"rank {QUERIES:,} in {size:,}", "query", QUERIES, rank, product, check)
    assert row.baseline is not None
    return dataclasses.replace(row, floor=row.baseline.median, floor_is="the bare product, which is the baseline")


def _free_memory(device: torch.device) -> int:
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available
