"""Anyone's predictions as files: ranked lists of image names, or features. Written, read and checked here."""

import io
import json
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mlcl_cli.atomic_files import to_json
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import QuerySet, Split, Triplet
from mlcl_cli.errors import DataError, UsageError, some
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.formatting import counted
from mlcl_cli.retrieval.evaluation import ComposedSet, Evaluation, counted_targets
from mlcl_cli.retrieval.ranking import PAD_INDEX, UNRANKED, Ranks
from mlcl_cli.safe_reading import open_regular, parse_json

LISTS = (".json", ".jsonl")
FEATURES = ".npz"
ARRAYS = ("query_ids", "query_features", "image_names", "image_features")
REMEDY = "Correct the predictions"
OTHER = f"{REMEDY}, or choose another --protocol"

RankedLists = Mapping[str, Sequence[str]]  # by query id, the images' names, best first


@dataclass(frozen=True)
class PredictedFeatures:
    """Features whose inner products rank: `queries` (Q, d) by query id, `images` (G, d) by image name, both fp32."""

    queries: FeatureTable
    images: FeatureTable


def require_format(path: Path) -> None:
    """Raise UsageError unless the file's name ends like one of the formats."""
    if path.suffix.lower() not in (*LISTS, FEATURES):
        raise UsageError("must end in .json, .jsonl or .npz", where=path, remedy="Choose another name")


def signature(path: Path, split: Split) -> str:
    """What a file of predictions for this split has near its start."""
    if path.suffix.lower() == FEATURES:
        return ARRAYS[0]
    return f"{json.dumps(split.sets[0].triplets[0].query_id)}:["


def to_bytes(path: Path, composed: Sequence[ComposedSet], protocol: Protocol) -> bytes:
    """Predictions in the format that the file's name ends in.

    A list is as long as the protocol's largest cut-off; the members of the query's image set that it lacks follow, in
    their order.
    """
    if path.suffix.lower() == FEATURES:
        return _features_as_npz(composed)
    lists = {query_id: names for part in composed for query_id, names in _ranked_lists(part, protocol)}
    if path.suffix.lower() == ".json":
        return to_json(lists)
    return b"".join(to_json({query_id: names}) for query_id, names in lists.items())


def _ranked_lists(composed: ComposedSet, protocol: Protocol) -> Iterator[tuple[str, list[str]]]:
    gallery = composed.part.gallery
    rows = composed.top(protocol.depth).rows
    if protocol.subset_recall_at:
        widest = max(len(triplet.members) for triplet in composed.part.triplets)
        rows = torch.cat([rows, composed.top(widest, among_members=True).rows], dim=1)
    for triplet, ranked in zip(composed.part.triplets, rows.tolist(), strict=True):
        yield triplet.query_id, list(dict.fromkeys(gallery[row] for row in ranked if row != PAD_INDEX))


def _features_as_npz(composed: Sequence[ComposedSet]) -> bytes:
    names = list(dict.fromkeys(name for part in composed for name in part.part.gallery))
    images = torch.empty(len(names), composed[0].gallery.shape[1])
    row = {name: number for number, name in enumerate(names)}
    for part in composed:
        images[[row[name] for name in part.part.gallery]] = part.gallery.cpu()
    file = io.BytesIO()
    np.savez(
        file,
        query_ids=np.array([triplet.query_id for part in composed for triplet in part.part.triplets]),
        query_features=torch.cat([part.queries.cpu() for part in composed]).numpy(),
        image_names=np.array(names),
        image_features=images.numpy(),
    )
    return file.getvalue()


def read_lists(path: Path) -> RankedLists:
    """Ranked lists from JSON, or JSON lines of the same form.

    Raises DataError for a file that is missing, unreadable or has another form, and for a query that comes twice.
    """
    lists: dict[str, Sequence[str]] = {}
    for place, text in _texts(path):
        try:
            value = parse_json(text)
        except ValueError as error:
            raise DataError(f"is not JSON ({error})", where=place, remedy=REMEDY) from error
        if not isinstance(value, dict):
            raise DataError('expected an object such as {"QUERY ID": ["NAME", …]}', where=place, remedy=REMEDY)
        for query_id, names in value.items():
            if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
                raise DataError(f"query {query_id!r}: expected a list of image names", where=place, remedy=REMEDY)
            if query_id in lists:
                raise DataError(f"query {query_id!r} comes twice", where=place, remedy=REMEDY)
            lists[query_id] = [str(name) for name in names]
    return lists


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """The JSON texts of a file with their places."""
    try:
        with open_regular(path) as file:
            if path.suffix.lower() == ".json":
                yield str(path), file.read().decode("utf-8-sig")
                return
            for number, line in enumerate(file, 1):
                if text := line.decode("utf-8-sig").strip():
                    yield f"{path}, line {number}", text
    except UnicodeDecodeError as error:
        raise DataError("is not UTF-8 text", where=path, remedy=REMEDY) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Name another file") from error


def read_features(path: Path) -> PredictedFeatures:
    """Features from the four arrays of an .npz file.

    Raises DataError for a file that is missing or damaged, lacks an array, or whose arrays do not fit.
    """
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
            if missing := [name for name in ARRAYS if name not in arrays]:
                what = f"has no array {missing[0]}; expected {', '.join(ARRAYS)}"
                raise DataError(what, where=path, remedy=REMEDY)
            ids, queries, names, images = (arrays[name] for name in ARRAYS)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", where=path, remedy="Name another file") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"is not a valid .npz file ({error})", where=path, remedy=REMEDY) from error
    tables = _table(path, ARRAYS[:2], ids, queries), _table(path, ARRAYS[2:], names, images)
    widths = [table.values.shape[1] for table in tables]
    if widths[0] != widths[1]:
        what = f"query_features have {widths[0]:,} dimensions, but image_features {widths[1]:,}"
        raise DataError(what, where=path, remedy=REMEDY)
    return PredictedFeatures(*tables)


def _table(path: Path, keys: Sequence[str], names: NDArray[np.generic], values: NDArray[np.generic]) -> FeatureTable:
    if names.ndim != 1 or values.ndim != 2 or len(names) != len(values) or values.dtype.kind not in "fiu":
        shapes = f"{keys[0]} {list(names.shape)}, {keys[1]} {list(values.shape)} {values.dtype}"
        what = f"expected {keys[0]} [N] and {keys[1]} [N, d] of numbers, got {shapes}"
        raise DataError(what, where=path, remedy=REMEDY)
    rows = {str(name): row for row, name in enumerate(names.tolist())}
    if len(rows) < len(names):
        raise DataError(f"{keys[0]} has a name twice", where=path, remedy=REMEDY)
    return FeatureTable(rows, torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)))


def require_same_queries(path: Path, split: Split, answered: Collection[str]) -> None:
    """Raise DataError for queries that are missing or unknown."""
    expected = [triplet.query_id for triplet in split.triplets]
    missing = [query_id for query_id in expected if query_id not in answered]
    unknown = sorted({*answered} - {*expected})
    for what, ids in (("not answered", missing), ("unknown", unknown)):
        if ids:
            count = counted(len(ids), "query")
            verb = "is" if len(ids) == 1 else "are"
            raise DataError(f"{count} {verb} {what}: {some(list(map(repr, ids)))}", where=path, remedy=OTHER)


def rank_lists(path: Path, split: Split, protocol: Protocol, lists: RankedLists) -> dict[str, Ranks]:
    """The targets' ranks by query set, as `rank_targets` gives them, from ranked lists.

    Where the protocol removes the reference, it does not count in a list. A target that a list lacks is UNRANKED.
    Raises DataError for missing or unknown queries, and for a list with an unknown name, a duplicate, or too few names.
    """
    require_same_queries(path, split, lists)
    return {part.name: _rank_set(path, part, protocol, lists) for part in split.sets}


def _rank_set(path: Path, part: QuerySet, protocol: Protocol, lists: RankedLists) -> Ranks:
    gallery = frozenset(part.gallery)
    targets, subset = [], []
    for triplet in part.triplets:
        names = lists[triplet.query_id]
        where = f"{path}, query {triplet.query_id!r}"
        if unknown := [name for name in names if name not in gallery]:
            count = counted(len(unknown), "name")
            what = f"{count} not in the gallery of {part.name}: {some(list(map(repr, unknown)))}"
            raise DataError(what, where=where, remedy=OTHER)
        if len({*names}) < len(names):
            twice = next(name for position, name in enumerate(names) if name in names[:position])
            raise DataError(f"lists {twice!r} twice", where=where, remedy=REMEDY)
        removed = triplet.reference if protocol.exclude_reference else None
        ranks = {name: rank for rank, name in enumerate((name for name in names if name != removed), 1)}
        needed = min(protocol.depth, len(gallery) - (removed in gallery))
        if len(ranks) < needed:
            what = f"lists {counted(len(ranks), 'image')}, but {protocol.name} needs {needed:,}"
            raise DataError(what, where=where, remedy=OTHER)
        targets.append([ranks.get(name, UNRANKED) for name in counted_targets(triplet, protocol)])
        if protocol.subset_recall_at:
            subset.append(_subset_rank(where, triplet, protocol, ranks, gallery, removed))
    width = max(map(len, targets))
    padded = [[*row, *[PAD_INDEX] * (width - len(row))] for row in targets]
    return Ranks(torch.tensor(padded), torch.tensor(subset) if protocol.subset_recall_at else None)


def _subset_rank(
    where: str,
    triplet: Triplet,
    protocol: Protocol,
    ranks: Mapping[str, int],
    gallery: Collection[str],
    removed: str | None,
) -> int:
    members = [name for name in triplet.members if name in gallery and name != removed]
    if missing := [name for name in members if name not in ranks]:
        what = f"{protocol.name} also needs the image set's other members after the first {protocol.depth}, in order"
        raise DataError(f"{what}: {some(list(map(repr, missing)))}", where=where, remedy=OTHER)
    if triplet.target not in members:
        return UNRANKED
    return 1 + sum(ranks[name] < ranks[triplet.target or ""] for name in members)


def rank_features(path: Path, evaluation: Evaluation, features: PredictedFeatures) -> dict[str, Ranks]:
    """The targets' ranks by query set from the inner products of features, which are used as they are.

    Raises DataError for missing or unknown queries and images, NotFiniteError for features that are not finite.
    """
    require_same_queries(path, evaluation.split, features.queries.rows)
    gallery = dict.fromkeys(name for part in evaluation.split.sets for name in part.gallery)
    for what, names in (
        ("missing", [name for name in gallery if name not in features.images.rows]),
        ("unknown", [name for name in features.images.rows if name not in gallery]),
    ):
        if names:
            count = counted(len(names), "image")
            verb = "is" if len(names) == 1 else "are"
            raise DataError(f"{count} {verb} {what}: {some(list(map(repr, names)))}", where=path, remedy=OTHER)
    return {part.part.name: part.rank() for part in evaluation.given(features.images, features.queries)}


def is_unit(values: Tensor) -> bool:
    """Whether all rows (N, d) have unit length, up to rounding in half precision."""
    return bool(((values.norm(dim=1) - 1).abs() < 1e-2).all())
