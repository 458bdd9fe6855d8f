"""The contrastive losses of METHOD.md."""

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mlcl_cli.models.combiner import FIXED_TEMPERATURE, Combiner, CombinerOutput

SsclTerm = Literal["mid", "high"]


def logits(queries: Tensor, targets: Tensor, scale: Tensor | float) -> Tensor:
    """scale · queries @ targetsᵀ for unit rows (B, d) each: (B, B), in fp32 even under mixed precision.

    A temperature of 100 would magnify the rounding of half precision to whole logits.
    """
    with torch.autocast(queries.device.type, enabled=False):
        return scale * (queries.float() @ targets.float().T)


def contrastive(scores: Tensor) -> Tensor:
    """CE(L), METHOD.md, Equation 2: mean cross-entropy of logits (B, B) against arange(B). Computed in fp32."""
    return cross_entropy(scores.float(), torch.arange(len(scores), device=scores.device))


def finetune_loss(reference: Tensor, text: Tensor, target: Tensor) -> Tensor:
    """METHOD.md, Equation 3: CE(100 · n(f_ref + f_txt) · n(f_tgt)ᵀ) from raw features (B, d)."""
    query = normalize(reference.float() + text.float(), dim=-1)
    return contrastive(logits(query, normalize(target.float(), dim=-1), FIXED_TEMPERATURE))


def combiner_logits(
    combiner: Combiner, output: CombinerOutput, target: Tensor, sscl: Collection[SsclTerm] = ("mid", "high")
) -> dict[str, Tensor]:
    """Logit matrices (B, B) of the active terms: hybrid, cat, sum (mCCL), sscl_mid, sscl_high (SSCL).

    METHOD.md, Equations 11 and 12. `target` is raw (B, d). SSCL terms need a second view in `output`.
    """
    goal, scale, sscl_scale = normalize(target.float(), dim=-1), combiner.temperature, combiner.sscl_temperature
    terms: dict[str, Tensor] = {level: logits(vector, goal, scale) for level, vector in reversed(output.levels.items())}
    if "mid" in sscl:
        joint = torch.cat([output.text.expand_as(output.images), output.images], dim=-1)
        plain, augmented = normalize(joint.float(), dim=-1)
        terms["sscl_mid"] = logits(plain, augmented, sscl_scale)
    if "high" in sscl and output.augmented is not None:
        terms["sscl_high"] = logits(output.levels["hybrid"], output.augmented, sscl_scale)
    return terms


def combiner_losses(combiner: Combiner, terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weighted terms of METHOD.md, Equation 13, by the names of `combiner_logits`; their sum is the loss."""
    weights = combiner.level_weights()
    return {name: weights.get(name, 1.0) * contrastive(scores) for name, scores in terms.items()}
