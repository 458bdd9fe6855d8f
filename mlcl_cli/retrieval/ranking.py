"""Exact ranks by counting, and the best rows of a gallery, in bounded memory (METHOD.md, Section 8.1)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcl_cli.errors import NotFiniteError

MAX_SCORES = 200_000_000  # fp32 scores in memory at once: 800 MB
MAX_SORTED = MAX_SCORES // 4  # scores sorted at once: a sort needs a copy and int64 indices besides
FULL_RATE_QUERIES = 256  # queries that a matrix product needs to run at its full rate
MAX_COMPARED = {"cpu": 2**20, "cuda": 2**26}  # scores compared at once: on a CPU, what fits its caches
UNRANKED = torch.iinfo(torch.int64).max
PAD_INDEX = -1


@dataclass(frozen=True, slots=True)
class Ranks:
    """1-based ranks, int64 on the CPU: of the first targets in the gallery, (Q,); among each query's members, (Q,).

    `targets` (Q, T) holds the ranks of all of a query's targets, the first one first; PAD_INDEX fills a row where there
    are fewer. A target that is excluded (it is its own reference) has rank UNRANKED. `subset` is None without members.
    """

    targets: Tensor
    subset: Tensor | None

    @property
    def gallery(self) -> Tensor:
        """The ranks of the first targets (Q,)."""
        return self.targets[:, 0]

    @property
    def best(self) -> Tensor:
        """The best rank among each query's targets (Q,)."""
        return self.targets.masked_fill(self.targets == PAD_INDEX, UNRANKED).amin(dim=1)

    def hits(self, at: Sequence[int], subset_at: Sequence[int] = (), *, any_target: bool = False) -> dict[str, Tensor]:
        """Whether each query is a hit, float64 (Q,): `recall@K` in the gallery, `recall_subset@K` among the members.

        With `any_target`, a hit is any target among the first K, else the first target (METHOD.md, Equation 20).
        """
        counted = self.best if any_target else self.gallery
        hits = {f"recall@{k}": (counted <= k).double() for k in at}
        if self.subset is not None:
            hits |= {f"recall_subset@{k}": (self.subset <= k).double() for k in subset_at}
        return hits

    def average_precisions(self, k: int) -> Tensor:
        """AP@K of each query over all of its targets, float64 (Q,) in [0, 1] (METHOD.md, Equation 21)."""
        present = self.targets != PAD_INDEX
        ranks = self.targets.masked_fill(~present, UNRANKED).sort(dim=1).values
        hits = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)  # how many targets are ranked up to each
        precisions = torch.where(ranks <= k, hits / ranks, 0.0)
        return precisions.sum(dim=1) / present.sum(dim=1).clamp(max=k)


@dataclass(frozen=True, slots=True)
class TopRows:
    """The best gallery rows of W queries, best first, on the CPU: int64 (W, k), and their scores, fp32 (W, k).

    PAD_INDEX with score −inf fills the end where fewer rows compete.
    """

    rows: Tensor
    scores: Tensor


def rank_targets(
    queries: Tensor,
    gallery: Tensor,
    targets: Tensor,
    *,
    excluded: Tensor | None = None,
    members: Tensor | None = None,
    max_scores: int = MAX_SCORES,
    advance: Callable[[int], object] = lambda _: None,
) -> Ranks:
    """Rank each query's target: 1 + how many gallery rows score higher, equal scores in gallery order.

    `queries` (Q, d) and `gallery` (G, d) are unit rows in fp32; `targets` (Q,) or (Q, T) are the distinct rows of each
    query's targets, `excluded` (Q,) the row that it must not find (the reference), `members` (Q, M) the distinct rows
    of its image set; PAD_INDEX stands for none in all but a query's first target. A target's score is read from the
    same product as the others', so that equal rows tie exactly. `advance` is called with the number of further queries
    ranked. Raises NotFiniteError for features that are not finite.
    """
    device = gallery.device
    targets = targets if targets.ndim == 2 else targets[:, None]
    ranks, subset = [], []
    for part, scores in _score(queries, gallery, max_scores):
        columns = targets[part].to(device).T
        first = columns[:1]
        hidden = excluded[part].to(device)[None] if excluded is not None else torch.full_like(first, PAD_INDEX)
        _exclude(scores, hidden)
        before = _count_before(scores, first) if len(columns) == 1 else _count_before_several(scores, columns)
        found = (1 + before).masked_fill(columns == hidden, UNRANKED).masked_fill(columns == PAD_INDEX, PAD_INDEX)
        ranks.append(found.T.cpu())
        if members is not None:
            subset.append(_subset_ranks(scores, first, hidden, members[part].to(device).T).cpu())
        advance(scores.shape[1])
    empty = torch.empty(0, dtype=torch.int64)
    every = torch.cat([empty.reshape(0, targets.shape[1]), *ranks])
    return Ranks(every, torch.cat([empty, *subset]) if members is not None else None)


def top_k(
    queries: Tensor,
    gallery: Tensor,
    k: int,
    *,
    selected: Tensor | None = None,
    excluded: Tensor | None = None,
    members: Tensor | None = None,
) -> TopRows:
    """The `k` best gallery rows of the queries `selected` (W,), in ascending order; by default of all queries.

    Takes all `queries`, even where few are selected: the scores come from the same products as in `rank_targets`, so a
    target's place here is its rank there. With `members`, only those rows compete. Raises NotFiniteError for features
    that are not finite.
    """
    device = gallery.device
    width = min(k, len(gallery) if members is None else members.shape[1])
    rows, values = [torch.empty(0, width, dtype=torch.int64)], [torch.empty(0, width)]
    selected = torch.arange(len(queries)) if selected is None else selected.cpu()
    for part, scores in _score(queries, gallery, MAX_SCORES):
        chosen = selected[(selected >= part.start) & (selected < part.stop)]
        for numbers in chosen.split(max(1, MAX_SORTED // max(1, len(gallery)))):
            chosen_scores = scores.index_select(1, (numbers - part.start).to(device))
            if excluded is not None:
                _exclude(chosen_scores, excluded[numbers.to(excluded.device)].to(device)[None])
            competing = None
            if members is not None:  # in gallery order, which the stable sort keeps among equal scores
                competing = members[numbers.to(members.device)].to(device).T.sort(dim=0).values
                chosen_scores = chosen_scores.gather(0, competing.clamp(min=0))
                chosen_scores.masked_fill_(competing == PAD_INDEX, -torch.inf)
            best, order = chosen_scores.sort(dim=0, descending=True, stable=True)
            order = order if competing is None else competing.gather(0, order)
            rows.append(torch.where(best == -torch.inf, PAD_INDEX, order)[:k].T.cpu())
            values.append(best[:k].T.cpu())
    return TopRows(torch.cat(rows), torch.cat(values))


def _score(queries: Tensor, gallery: Tensor, max_scores: int) -> Iterator[tuple[slice, Tensor]]:
    """Scores (G, chunk) of successive chunks of queries; each chunk overwrites the last. Raises NotFiniteError."""
    _require_finite(queries, gallery)
    rows = max(1, len(gallery))
    # Few enough that their scores stay in the processor's caches, enough for the product; never above the bound.
    chunk_size = max(1, min(max(MAX_COMPARED[gallery.device.type] // rows, FULL_RATE_QUERIES), max_scores // rows))
    # Fresh pages for each chunk would cost as much as the counting.
    memory = gallery.new_empty(len(gallery) * min(chunk_size, len(queries)))
    for start in range(0, len(queries), chunk_size):
        part = slice(start, start + chunk_size)
        chunk = queries[part]
        # (G, Q) and not (Q, G): for few queries and a large gallery the product is 1.5 times as fast.
        yield part, torch.mm(gallery, chunk.T, out=memory[: len(gallery) * len(chunk)].view(len(gallery), len(chunk)))


def _require_finite(queries: Tensor, gallery: Tensor) -> None:
    """A NaN score compares as neither higher nor equal, so its target would silently get a good rank."""
    for name, features in (("query", queries), ("gallery", gallery)):
        # A sum with an infinity or a NaN in it is never finite, and costs one pass instead of three.
        if not bool(features.sum(dim=1).isfinite().all()):
            finite = torch.isfinite(features).all(dim=1)
            row = int((~finite).nonzero()[0])
            raise NotFiniteError(
                f"features are not finite ({int((~finite).sum()):,} of {len(features):,}, first: {name} {row})",
                remedy="Use another checkpoint, or precision: fp32",
            )


def _exclude(scores: Tensor, hidden: Tensor) -> None:
    """Set the score of each query's `hidden` row (1, Q) in `scores` (G, Q) to −inf; PAD_INDEX hides none."""
    row = hidden.clamp(min=0)
    scores.scatter_(0, row, torch.where(hidden == PAD_INDEX, scores.gather(0, row), -torch.inf))


def _count_before(scores: Tensor, target: Tensor) -> Tensor:
    """How many of `scores` (G, Q) rank before the target (1, Q): the higher ones, and equal ones in earlier rows."""
    target_score = scores.gather(0, target)
    rows = max(1, MAX_COMPARED[scores.device.type] // scores.shape[1])
    above, equal = (torch.zeros_like(target) for _ in range(2))
    for block in scores.split(rows):
        higher = (block > target_score).sum(dim=0, dtype=torch.int32)
        above += higher
        equal += (block >= target_score).sum(dim=0, dtype=torch.int32) - higher
    if bool((equal <= 1).all()):  # only the target itself
        return above
    order = torch.arange(len(scores), device=scores.device)[:, None]
    for block, numbers in zip(scores.split(rows), order.split(rows), strict=True):
        above += ((block == target_score) & (numbers < target)).sum(dim=0)
    return above


def _count_before_several(scores: Tensor, targets: Tensor) -> Tensor:
    """The same for each of several targets (T, Q), in one pass over the scores however many there are."""
    queries = max(1, MAX_COMPARED[scores.device.type] // len(scores))
    blocks = zip(scores.split(queries, dim=1), targets.split(queries, dim=1), strict=True)
    return torch.cat([_count_in_rows(block.T.contiguous(), wanted.T).T for block, wanted in blocks], dim=1)


def _count_in_rows(scores: Tensor, targets: Tensor) -> Tensor:
    """How many of `scores` (Q, G) rank before each of the targets (Q, T); of no meaning where that is PAD_INDEX."""
    count, width = targets.shape
    own = scores.gather(1, targets.clamp(min=0)).masked_fill(targets == PAD_INDEX, torch.inf)
    bounds = own.sort(dim=1).values
    place = torch.searchsorted(bounds, scores)  # how many of the query's targets score lower
    query = torch.arange(count, device=scores.device)[:, None]
    histogram = torch.bincount((query * (width + 1) + place).flatten(), minlength=count * (width + 1))
    above = histogram.view(count, width + 1).flip(1).cumsum(1).flip(1)  # how many have that place or a later one
    # Rows with the score of a target: the targets themselves, and rows that tie with one, in gallery order.
    number, row = (scores == bounds.gather(1, place.clamp(max=width - 1))).nonzero(as_tuple=True)
    group = number * width + place[number, row]
    order = group.argsort(stable=True)
    grouped = group[order]
    position = torch.arange(len(order), device=scores.device) - torch.searchsorted(grouped, grouped)
    earlier = torch.empty_like(position).scatter_(0, order, position)
    found = torch.searchsorted(number * scores.shape[1] + row, query * scores.shape[1] + targets.clamp(min=0))
    return above.gather(1, torch.searchsorted(bounds, own) + 1) + earlier[found.clamp(max=len(earlier) - 1)]


def _subset_ranks(scores: Tensor, target: Tensor, hidden: Tensor, members: Tensor) -> Tensor:
    """Ranks among `members` (M, Q) without the reference; UNRANKED where the target is not a member."""
    target_score, member_scores = scores.gather(0, target), scores.gather(0, members.clamp(min=0))
    competing = (members != PAD_INDEX) & (members != hidden)
    better = (member_scores > target_score) | ((member_scores == target_score) & (members < target))
    is_member = ((members == target) & competing).any(dim=0)
    return torch.where(is_member, 1 + (better & competing).sum(dim=0), UNRANKED)
