"""Exact ranks by counting, in bounded memory (METHOD.md, Section 8.1)."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mlcl_cli.errors import NotFiniteError

MOST_SCORES = 200_000_000  # fp32 scores held at once: at most 800 MB
FULL_PRODUCT = 256  # queries that a matrix product needs to run at its full rate
IN_REACH = {"cpu": 2**20, "cuda": 2**26}  # scores that are compared at once: on a CPU, what its caches hold
UNRANKED = torch.iinfo(torch.int64).max
PAD_INDEX = -1


class Ranks(NamedTuple):
    """1-based ranks of the targets, int64 (Q,) on the CPU: in the gallery, and among each query's members.

    A target that was excluded (it is its own reference) has rank UNRANKED. `subset` is None without members.
    """

    gallery: Tensor
    subset: Tensor | None


def rank_targets(
    queries: Tensor,
    gallery: Tensor,
    targets: Tensor,
    *,
    excluded: Tensor | None = None,
    members: Tensor | None = None,
    most_scores: int = MOST_SCORES,
    advance: Callable[[int], object] = lambda _: None,
) -> Ranks:
    """Ranks each query's target: 1 + how many gallery rows score higher, equal scores in gallery order.

    `queries` (Q, d) and `gallery` (G, d) are unit rows in fp32; `targets` (Q,) are gallery rows, `excluded` (Q,) the
    row that each query must not find (the reference), `members` (Q, M) the distinct rows of its image set; PAD_INDEX
    stands for none in both. The target's score is read from the same product as its rivals', so that equal rows
    tie exactly. `advance` hears how many more are ranked. Raises NotFiniteError where a feature is not finite.
    """
    require_finite(queries, gallery)
    device = gallery.device
    ranks, subset = [], []
    for part, scores in _scored(queries, gallery, most_scores):
        target = targets[part].to(device)[None]
        own = scores.gather(0, target)
        rival = excluded[part].to(device)[None] if excluded is not None else torch.full_like(target, PAD_INDEX)
        if members is not None:
            subset.append(_subset_ranks(scores, own, target, rival, members[part].to(device).T).cpu())
        if excluded is not None:
            scores.scatter_(0, rival.clamp(min=0), _excluded_scores(scores, rival))
        missed = (rival == target).squeeze(0)
        ranks.append(torch.where(missed, UNRANKED, 1 + _rivals_before(scores, own, target)).cpu())
        advance(scores.shape[1])
    empty = torch.empty(0, dtype=torch.int64)
    return Ranks(torch.cat([empty, *ranks]), torch.cat([empty, *subset]) if members is not None else None)


def best_rows(queries: Tensor, gallery: Tensor, k: int, *, excluded: Tensor, members: Tensor | None = None) -> Tensor:
    """The `k` best gallery rows of each query, best first, equal scores in gallery order; int64 (Q, k) on the CPU.

    With `members` (Q, M) only those rows are ranked; PAD_INDEX ends each row that has fewer than `k`.
    Raises NotFiniteError where a feature is not finite.
    """
    require_finite(queries, gallery)
    chunk = _queries_at_once(gallery, MOST_SCORES // 4)
    best = []
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        scores = queries[part] @ gallery.T
        rival = excluded[part].to(gallery.device)[:, None]
        allowed = torch.ones_like(scores, dtype=torch.bool)
        if members is not None:
            own = members[part].to(gallery.device)
            allowed = torch.zeros_like(scores, dtype=torch.bool)
            allowed.scatter_(1, torch.where(own == PAD_INDEX, own[:, :1], own), value=True)
        allowed.scatter_(1, rival.clamp(min=0), allowed.gather(1, rival.clamp(min=0)) & (rival == PAD_INDEX))
        scores.masked_fill_(~allowed, -torch.inf)
        values, rows = scores.sort(dim=1, descending=True, stable=True)
        best.append(torch.where(values[:, :k] == -torch.inf, PAD_INDEX, rows[:, :k]).cpu())
    return torch.cat(best) if best else torch.empty(0, k, dtype=torch.int64)


class Best(NamedTuple):
    """The best gallery rows of some queries, best first, int64 (W, k), and their scores, fp32 (W, k); on the CPU."""

    rows: Tensor
    scores: Tensor


def best_of_some(queries: Tensor, gallery: Tensor, wanted: Tensor, k: int, *, excluded: Tensor | None = None) -> Best:
    """The `k` best of the queries `wanted` (W,), ascending; a row that is excluded has score −inf.

    All `queries` are given, since the products are those of `rank_targets`: a target's place here is its rank.
    Raises NotFiniteError where a feature is not finite.
    """
    require_finite(queries, gallery)
    rows, best = [], []
    for part, scores in _scored(queries, gallery, MOST_SCORES):
        own = wanted[(wanted >= part.start) & (wanted < part.stop)]
        if len(own):
            some = scores.index_select(1, (own - part.start).to(scores.device))
            if excluded is not None:
                rival = excluded[own.to(excluded.device)].to(scores.device)[None]
                some.scatter_(0, rival.clamp(min=0), _excluded_scores(some, rival))
            values, order = some.sort(dim=0, descending=True, stable=True)
            rows.append(order[:k].T.cpu())
            best.append(values[:k].T.cpu())
    return Best(torch.cat(rows), torch.cat(best))


def require_finite(queries: Tensor, gallery: Tensor) -> None:
    """Refuses features that would make scores no number; a metric of NaNs reads as a small honest figure."""
    for what, features in (("query", queries), ("gallery", gallery)):
        # A sum with an infinity or a NaN in it is never finite, and costs one pass instead of three.
        if not bool(features.sum(dim=1).isfinite().all()):
            finite = torch.isfinite(features).all(dim=1)
            row = int((~finite).nonzero()[0])
            raise NotFiniteError(
                f"features are not finite ({int((~finite).sum()):,} of {len(features):,}, first: {what} {row})",
                remedy="Use another checkpoint, or precision: fp32; scores of NaN are never ranked",
            )


def _scored(queries: Tensor, gallery: Tensor, most_scores: int) -> Iterator[tuple[slice, Tensor]]:
    """Scores (G, some) of some queries after the other, in one piece of memory, which the next ones take over."""
    chunk = _queries_at_once(gallery, most_scores)
    # Fresh pages for each chunk would cost as much as the counting.
    memory = gallery.new_empty(len(gallery) * min(chunk, len(queries)))
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        few = queries[part]
        # (G, Q) and not (Q, G): for a few queries and a large gallery the product is half as fast again.
        yield part, torch.mm(gallery, few.T, out=memory[: len(gallery) * len(few)].view(len(gallery), len(few)))


def _queries_at_once(gallery: Tensor, most_scores: int) -> int:
    """Few enough that their scores stay in the processor's reach, enough for the product; never above the bound."""
    rows = max(1, len(gallery))
    return max(1, min(max(IN_REACH[gallery.device.type] // rows, FULL_PRODUCT), most_scores // rows))


def _rivals_before(scores: Tensor, own: Tensor, target: Tensor) -> Tensor:
    """How many of `scores` (G, Q) stand before the target's `own` (1, Q): the higher ones, and ties above its row."""
    rows = max(1, IN_REACH[scores.device.type] // scores.shape[1])
    above, level = (torch.zeros(scores.shape[1], dtype=torch.int64, device=scores.device) for _ in range(2))
    for block in scores.split(rows):
        higher = (block > own).sum(dim=0, dtype=torch.int32)
        above += higher
        level += (block >= own).sum(dim=0, dtype=torch.int32) - higher
    if bool((level <= 1).all()):  # the target itself, and no other
        return above
    order = torch.arange(len(scores), device=scores.device)[:, None]
    for block, numbers in zip(scores.split(rows), order.split(rows), strict=True):
        above += ((block == own) & (numbers < target)).sum(dim=0)
    return above


def _subset_ranks(scores: Tensor, own: Tensor, target: Tensor, rival: Tensor, members: Tensor) -> Tensor:
    """Ranks among `members` (M, Q) less the reference, by the same rule; UNRANKED where the target is not of them."""
    theirs = scores.gather(0, members.clamp(min=0))
    counted = (members != PAD_INDEX) & (members != rival)
    better = (theirs > own) | ((theirs == own) & (members < target))
    found = ((members == target) & counted).any(dim=0)
    return torch.where(found, 1 + (better & counted).sum(dim=0), UNRANKED)


def _excluded_scores(scores: Tensor, rival: Tensor) -> Tensor:
    """−inf for a reference that is in the gallery, the score as it was where PAD_INDEX is excluded."""
    return torch.where(rival == PAD_INDEX, scores.gather(0, rival.clamp(min=0)), -torch.inf)
