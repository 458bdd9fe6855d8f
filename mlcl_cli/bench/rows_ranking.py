"""Rows of validation and ranking, on random features of the real sizes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Row
from mlcl_cli.bench.synthetic_data import SyntheticData
from mlcl_cli.data.datasets import protocol_of
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.retrieval.evaluation import Evaluation, sum_query
from mlcl_cli.retrieval.ranking import rank_targets

FEATURES = 640
RANKED = 1000
NAMES = {"cirr": "CIRR", "fashioniq": "FashionIQ dress", "shoes": "Shoes"}


def validations(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """Queries composed, ranked and measured, as after every epoch."""
    for dataset in material.sizes.validated:
        yield _validation(material, repeats, dataset)


def _validation(material: SyntheticData, repeats: int, dataset: str) -> Row:
    device = material.machine.compute.device
    split, protocol = _split(dataset, *material.sizes.validated[dataset]), protocol_of(dataset)
    if dataset == "fashioniq":  # one category of the three
        protocol = dataclasses.replace(protocol, summary=lambda recalls: dict(*recalls.values()))
    evaluation = Evaluation(split, protocol, lambda triplet: triplet.captions[0])
    draw = torch.Generator().manual_seed(1)
    images = _table(split.sets[0].gallery, draw, device)
    texts = _table([triplet.captions[0] for triplet in split.triplets], draw, device)
    found: dict[str, dict[str, float]] = {}

    def ours() -> None:
        found["ours"] = evaluation(images, texts, sum_query).metrics

    def other() -> None:
        found["plain"] = _plain_validation(split, images, texts, protocol)

    timings = material.machine.beside(ours, other, repeats)
    worst = max(abs(found["ours"][key] - value) for key, value in found["plain"].items())
    problem = None if worst < 1e-4 else f"recalls differ by {worst:.4f} points"
    count = len(split.triplets)
    return Row(f"validate {NAMES[dataset]}", "query", (count, count), *timings, disagreement=problem)


def large_gallery(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """A thousand queries against a large gallery, beside the bare matrix product."""
    for size in material.sizes.ranked:
        if 4 * FEATURES * size + 2**30 < 0.8 * _free(material.machine.compute.device):
            yield _large(material, min(3, repeats), size)


def _large(material: SyntheticData, repeats: int, size: int) -> Row:
    device = material.machine.compute.device
    draw = torch.Generator(device).manual_seed(2)
    gallery = torch.empty(size, FEATURES, device=device)
    for part in gallery.split(100_000):
        part.copy_(normalize(torch.randn(part.shape, generator=draw, device=device), dim=-1))
    queries = normalize(torch.randn(RANKED, FEATURES, generator=draw, device=device), dim=-1)
    targets = torch.randint(size, (RANKED,), generator=draw, device=device)
    at_once = RANKED if 5 * RANKED * size < _free(device) else 100
    found: dict[str, Tensor] = {}

    def ours() -> None:
        found["ours"] = rank_targets(queries, gallery, targets).gallery

    def bare() -> None:
        for part in queries.split(at_once):
            gallery @ part.T

    timings = material.machine.beside(ours, bare, repeats)
    scores = queries[:20] @ gallery.T
    naive = (scores > scores.gather(1, targets[:20, None])).sum(dim=1).cpu() + 1
    worst = int((found["ours"][:20] - naive).abs().max())
    problem = None if worst <= max(2, size // 100_000) else f"ranks differ by {worst}"  # the rounding of a product
    of = "the bare product, which is the plain side"
    return Row(f"rank {RANKED:,} in {size:,}", "query", (RANKED, RANKED), *timings, problem, timings[1].median, of)


def _split(dataset: str, queries: int, gallery: int) -> Split:
    names = tuple(f"{dataset}-image-{number:06}" for number in range(gallery))
    draw = torch.Generator().manual_seed(0)
    triplets = []
    for number in range(queries):
        members = tuple(names[row] for row in torch.randperm(gallery, generator=draw)[:6].tolist())
        triplets.append(Triplet(members[0], members[1], (str(number),), number, members))
    return Split(dataset, "val", (QuerySet(dataset, tuple(triplets), names),), {name: Path(name) for name in names})


@torch.no_grad()
def _plain_validation(split: Split, images: FeatureTable, texts: FeatureTable, protocol: Any) -> dict[str, float]:
    (part,) = split.sets
    gallery = normalize(images.values, dim=-1)
    references, targets = [t.reference for t in part.triplets], [t.target or "" for t in part.triplets]
    text = torch.vstack([texts.values[texts.rows[triplet.captions[0]]] for triplet in part.triplets])
    image = torch.vstack([images.values[images.rows[name]] for name in references])
    queries = normalize(image + text, dim=-1)
    members = [[name for name in t.members if name != t.reference] for t in part.triplets]
    return baseline.string_recalls(
        queries,
        gallery,
        part.gallery,
        targets,
        protocol.recall_at,
        references if protocol.exclude_reference else None,
        members if protocol.subset_recall_at else None,
    )


def _table(names: Sequence[str], draw: torch.Generator, device: torch.device) -> FeatureTable:
    values = torch.randn(len(names), FEATURES, generator=draw).to(device)
    return FeatureTable({name: row for row, name in enumerate(names)}, values)


def _free(device: torch.device) -> int:
    return torch.cuda.mem_get_info()[0] if device.type == "cuda" else psutil.virtual_memory().available


ROWS: tuple[Callable[[SyntheticData, int], Iterator[Row]], ...] = (validations, large_gallery)
