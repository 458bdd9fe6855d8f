"""The multi-level combiner: a reference image and a modifier become one query (METHOD.md, Section 4.1)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, normalize, relu

from mlcl_cli.errors import DataError
from mlcl_cli.models.weights import shape_mismatches

Level = Literal["sum", "cat", "hybrid"]
LEVELS: tuple[Level, ...] = ("sum", "cat", "hybrid")
FIXED_TEMPERATURE = 100.0  # METHOD.md, Equations 3 and 10


class InferenceWeights(StrEnum):
    """Which weights the high and mid levels of a query have (METHOD.md, Section 5)."""

    RELEASED = "released"  # Equation 15: those of the training loss, swapped
    MATCHED = "matched"  # Equation 16: those of the training loss


RELEASED, MATCHED = InferenceWeights


@dataclass(frozen=True, slots=True)
class CombinerOutput:
    """Outputs for V = 1 view (the reference) or 2 (the reference, then its augmented view).

    text       t, the half of r that all views share, raw, (B, p); Equation 4 of METHOD.md
    images     i and i', the other half, raw, (V, B, p); Equation 4
    levels     of the reference, in the order of LEVELS, unit rows, (B, d): sum, the low level (Equation 7); cat, the
               mid level (Equation 8); hybrid, the high level (Equation 9)
    augmented  hybrid of the augmented view, if both exist
    """

    text: Tensor
    images: Tensor
    levels: dict[Level, Tensor]
    augmented: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a combiner is built from: sizes d, p, h and the parts that exist."""

    feature_dim: int
    projection_dim: int
    hidden_dim: int
    levels: tuple[Level, ...] = LEVELS
    learned_temperature: bool = True
    self_supervised: bool = True

    def describe(self) -> dict[str, object]:
        """Plain values, stored beside the weights."""
        return asdict(self) | {"levels": list(self.levels)}


class Combiner(nn.Module):
    """The network of METHOD.md, Equations 4–9. Parameter names are those of the original checkpoints."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        d, p, h = architecture.feature_dim, architecture.projection_dim, architecture.hidden_dim
        self.text_projection_layer = nn.Linear(d, p)
        self.image_projection_layer = nn.Linear(d, p)
        self.combiner_layer = nn.Linear(2 * p, h)
        has_cat, has_hybrid = "cat" in architecture.levels, "hybrid" in architecture.levels
        if has_hybrid:
            self.output_layer = nn.Linear(h, d)
            self.dynamic_scalar = nn.Sequential(nn.Linear(2 * p, h), nn.ReLU(), nn.Dropout(0.5), nn.Linear(h, 1))
        if has_cat:
            self.combiner_proj = nn.Linear(h, d)
        # Initial values: METHOD.md, Section 4.2.
        self.loss_weight = nn.Parameter(torch.full((1,), math.log(0.5))) if has_cat and has_hybrid else None
        learned, sscl = architecture.learned_temperature, architecture.self_supervised
        self.logit_scale = nn.Parameter(torch.full((1,), math.log(100.0))) if learned else None
        self.logit_scale_sl = nn.Parameter(torch.full((1,), math.log(100.0))) if learned and sscl else None

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], *, levels: tuple[Level, ...] | None = None) -> Self:
        """Build the network that `state` belongs to: sizes from its shapes, parts from its keys.

        Level `sum` has no weights. Without `levels` it is assumed, unless the state holds only the high level, as
        CLIP4Cir's do. Raises DataError if keys or shapes are not a combiner's.
        """
        try:
            p, d = state["text_projection_layer.weight"].shape
            h = state["combiner_layer.weight"].shape[0]
        except (KeyError, ValueError) as error:
            raise DataError("these weights are not a combiner's", remedy="Use a combiner checkpoint") from error
        if levels is None:
            mid, high = "combiner_proj.weight" in state, "output_layer.weight" in state
            levels = tuple(level for level, exists in zip(LEVELS, (mid, mid, high), strict=True) if exists)
        scales = {"learned_temperature": "logit_scale" in state, "self_supervised": "logit_scale_sl" in state}
        combiner = cls(Architecture(feature_dim=d, projection_dim=p, hidden_dim=h, levels=levels, **scales))
        if mismatches := shape_mismatches(combiner.state_dict(), state):
            names = ", ".join(mismatches[:4])
            raise DataError(f"combiner weights do not fit together: {names}", remedy="Use another file")
        combiner.load_state_dict(dict(state))
        return combiner

    @property
    def temperature(self) -> Tensor:
        """τ = exp(logit_scale), or 100 where it is fixed (METHOD.md, Equation 10); shape (1,)."""
        return self._scale(self.logit_scale)

    @property
    def sscl_temperature(self) -> Tensor:
        """τ_s = exp(logit_scale_sl), or 100 where it is fixed (METHOD.md, Equation 10); shape (1,)."""
        return self._scale(self.logit_scale_sl)

    @property
    def weight(self) -> Tensor | None:
        """w = sigmoid(loss_weight), shape (1,); None where only one of mid and high level exists."""
        return None if self.loss_weight is None else torch.sigmoid(self.loss_weight)

    def level_weights(self, weights: InferenceWeights = MATCHED) -> Mapping[str, Tensor]:
        """2w and 2 − 2w for the high and mid levels (METHOD.md, Equation 13), or swapped; without an entry it is 1."""
        if (weight := self.weight) is None:
            return {}
        high, mid = 2 * weight, 2 - 2 * weight
        return {"hybrid": high, "cat": mid} if weights is MATCHED else {"hybrid": mid, "cat": high}

    def forward(self, text: Tensor, images: Tensor) -> CombinerOutput:
        """Combine raw features: `text` (B, d), `images` (V, B, d), in one batched pass for all views.

        The views share the text projection, its dropout mask and its products with the next layers; every other
        dropout mask is drawn per view.
        """
        shared = self._drop(relu(self.text_projection_layer(text)))
        projected = self._drop(relu(self.image_projection_layer(images)))
        combined = self._drop(relu(_joint_linear(self.combiner_layer, shared, projected)))
        levels: dict[Level, Tensor] = {}
        augmented = None
        if "sum" in self.architecture.levels:
            levels["sum"] = normalize(images[0].float() + text.float(), dim=-1)
        if "cat" in self.architecture.levels:
            # c is never negative, so the relu of METHOD.md, Equation 8, changes nothing.
            levels["cat"] = normalize(self.combiner_proj(combined[0]).float(), dim=-1)
        if "hybrid" in self.architecture.levels:
            first, second = self.dynamic_scalar[0], self.dynamic_scalar[3]
            assert isinstance(first, nn.Linear)
            share = torch.sigmoid(second(self._drop(relu(_joint_linear(first, shared, projected)))).float())
            mixed = share * text.float() + (1 - share) * images.float()
            levels["hybrid"], *others = normalize(self.output_layer(combined).float() + mixed, dim=-1)
            augmented = others[0] if others else None
        return CombinerOutput(shared, projected, levels, augmented)

    @torch.no_grad()
    def queries(self, text: Tensor, images: Tensor, weights: InferenceWeights = RELEASED) -> Tensor:
        """Unit queries (B, d) from raw `text` and `images` (B, d): METHOD.md, Equations 15 and 16."""
        parts = self.query_parts(text, images, weights)
        return normalize(sum(parts.values(), start=torch.zeros_like(text, dtype=torch.float32)), dim=-1)

    @torch.no_grad()
    def query_parts(self, text: Tensor, images: Tensor, weights: InferenceWeights = RELEASED) -> dict[Level, Tensor]:
        """The weighted level vectors (B, d) whose normalized sum is the query. Call in eval mode."""
        output: CombinerOutput = self(text, images[None])
        factors = self.level_weights(weights)
        return {level: factors.get(level, 1.0) * vector for level, vector in output.levels.items()}

    def _drop(self, x: Tensor) -> Tensor:
        """Dropout with probability 0.5 (METHOD.md, Section 4.1)."""
        if x.is_cuda or not self.training:
            return dropout(x, 0.5, self.training)
        # On a CPU, uniform numbers take a quarter of the time of dropout's Bernoulli draws (measured).
        return x * ((torch.rand_like(x) < 0.5) * 2)

    def _scale(self, logarithm: Tensor | None) -> Tensor:
        return self.combiner_layer.bias.new_tensor([FIXED_TEMPERATURE]) if logarithm is None else logarithm.exp()


def _joint_linear(layer: nn.Linear, text: Tensor, images: Tensor) -> Tensor:
    """`layer` of r = [t ; i] for every view; the product with t (B, p) is computed once for all of them."""
    text_weight, image_weight = layer.weight.split(text.shape[-1], dim=1)
    return linear(text, text_weight, layer.bias) + linear(images, image_weight)


def is_combiner_state(state: Mapping[str, Tensor]) -> bool:
    """Whether these are a combiner's weights, by their names."""
    return {"text_projection_layer.weight", "image_projection_layer.weight", "combiner_layer.weight"} <= set(state)
