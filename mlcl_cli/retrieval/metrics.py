"""Recalls from ranks."""

from collections.abc import Sequence

from torch import Tensor

from mlcl_cli.retrieval.ranking import Ranks


def recall(ranks: Tensor, k: int) -> float:
    """Percentage of queries whose target has rank `k` or better (METHOD.md, Equation 20).

    `ranks` (Q,) are 1-based.
    """
    return float((ranks <= k).double().mean()) * 100


def recalls(ranks: Ranks, at: Sequence[int], subset_at: Sequence[int] = ()) -> dict[str, float]:
    """`recall@K` over the gallery and `recall_subset@K` among the members, in percent (METHOD.md, Equation 20)."""
    metrics = {f"recall@{k}": recall(ranks.gallery, k) for k in at}
    if ranks.subset is not None:
        metrics |= {f"recall_subset@{k}": recall(ranks.subset, k) for k in subset_at}
    return metrics
