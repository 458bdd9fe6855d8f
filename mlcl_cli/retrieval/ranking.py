"""Exact ranks by counting, in bounded memory (method.md, "Validation protocols")."""

from typing import NamedTuple

import torch
from torch import Tensor

from mlcl_cli.errors import NotFiniteError

MOST_SCORES = 120_000_000  # held at once, with their comparisons five to seven bytes each: at most 840 MB
USUAL_SCORES = 16_000_000
FULL_PRODUCT = 256  # queries that a matrix product needs to run at its full rate
MISS = torch.iinfo(torch.int64).max
NOBODY = -1


class Ranks(NamedTuple):
    """1-based ranks of the targets, int64 (Q,) on the CPU: in the gallery, and among each query's members.

    A target that was excluded (it is its own reference) has rank MISS. `subset` is None without members.
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
) -> Ranks:
    """Ranks each query's target: 1 + how many gallery rows score higher, equal scores in gallery order.

    `queries` (Q, d) and `gallery` (G, d) are unit rows in fp32; `targets` (Q,) are gallery rows, `excluded` (Q,) the
    row that each query must not find (the reference), `members` (Q, M) the distinct rows of its image set; NOBODY
    stands for none in both. The target's score is read from the same product as its rivals', so that equal rows
    tie exactly. Raises NotFiniteError where a feature is not finite.
    """
    require_finite(queries, gallery)
    chunk = _queries_at_once(len(gallery), most_scores)
    ranks, subset = [], []
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        scores = queries[part] @ gallery.T
        target = targets[part].to(gallery.device)[:, None]
        own = scores.gather(1, target)
        missed = torch.zeros(len(scores), dtype=torch.bool, device=gallery.device)
        rival = excluded[part].to(gallery.device)[:, None] if excluded is not None else torch.full_like(target, NOBODY)
        if members is not None:
            subset.append(_subset_ranks(scores, own, target, rival, members[part].to(gallery.device)).cpu())
        if excluded is not None:
            missed = (rival == target).squeeze(1)
            scores.scatter_(1, rival.clamp(min=0), _excluded_scores(scores, rival))
        ranks.append(torch.where(missed, MISS, 1 + _rivals_before(scores, own, target)).cpu())
    empty = torch.empty(0, dtype=torch.int64)
    return Ranks(torch.cat([empty, *ranks]), torch.cat([empty, *subset]) if members is not None else None)


def best_rows(queries: Tensor, gallery: Tensor, k: int, *, excluded: Tensor, members: Tensor | None = None) -> Tensor:
    """The `k` best gallery rows of each query, best first, equal scores in gallery order; int64 (Q, k) on the CPU.

    With `members` (Q, M) only those rows are ranked; NOBODY ends each row that has fewer than `k`.
    Raises NotFiniteError where a feature is not finite.
    """
    require_finite(queries, gallery)
    chunk = _queries_at_once(len(gallery), MOST_SCORES // 4)
    best = []
    for start in range(0, len(queries), chunk):
        part = slice(start, start + chunk)
        scores = queries[part] @ gallery.T
        rival = excluded[part].to(gallery.device)[:, None]
        allowed = torch.ones_like(scores, dtype=torch.bool)
        if members is not None:
            own = members[part].to(gallery.device)
            allowed = torch.zeros_like(scores, dtype=torch.bool)
            allowed.scatter_(1, torch.where(own == NOBODY, own[:, :1], own), value=True)
        allowed.scatter_(1, rival.clamp(min=0), allowed.gather(1, rival.clamp(min=0)) & (rival == NOBODY))
        scores.masked_fill_(~allowed, -torch.inf)
        values, rows = scores.sort(dim=1, descending=True, stable=True)
        best.append(torch.where(values[:, :k] == -torch.inf, NOBODY, rows[:, :k]).cpu())
    return torch.cat(best) if best else torch.empty(0, k, dtype=torch.int64)


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


def _queries_at_once(gallery: int, most_scores: int) -> int:
    """Few enough that their scores stay in the processor's reach, enough for the product; never above the bound."""
    return max(1, min(max(USUAL_SCORES // max(1, gallery), FULL_PRODUCT), most_scores // max(1, gallery)))


def _rivals_before(scores: Tensor, own: Tensor, target: Tensor) -> Tensor:
    """How many of `scores` (Q, G) stand before the target's `own` (Q, 1): the higher ones, and ties above its row."""
    above = (scores > own).sum(dim=1, dtype=torch.int32)
    level = (scores >= own).sum(dim=1, dtype=torch.int32) - above
    if bool((level <= 1).all()):  # the target itself, and no other
        return above.long()
    order = torch.arange(scores.shape[1], device=scores.device)
    return above + ((scores == own) & (order < target)).sum(dim=1)


def _subset_ranks(scores: Tensor, own: Tensor, target: Tensor, rival: Tensor, members: Tensor) -> Tensor:
    """Ranks among `members` (Q, M) less the reference, by the same rule; MISS where the target is not of them."""
    theirs = scores.gather(1, members.clamp(min=0))
    counted = (members != NOBODY) & (members != rival)
    better = (theirs > own) | ((theirs == own) & (members < target))
    found = ((members == target) & counted).any(dim=1)
    return torch.where(found, 1 + (better & counted).sum(dim=1), MISS)


def _excluded_scores(scores: Tensor, rival: Tensor) -> Tensor:
    """−inf for a reference that is in the gallery, the score as it was where NOBODY is excluded."""
    return torch.where(rival == NOBODY, scores.gather(1, rival.clamp(min=0)), -torch.inf)
