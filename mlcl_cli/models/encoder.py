"""CLIP's two encoders on a device, and the tokens that the text encoder reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mlcl_cli.models.compute import Compute
from mlcl_cli.models.weights import State, fingerprint, import_clip

Tower = Literal["text", "image"]


class Encoder:
    """CLIP in eval mode (batch-norm statistics never move, not even in fine-tuning: METHOD.md, Section 2).

    Encodes in fp32, and in mixed precision inside of a training step's autocast.
    """

    def __init__(self, clip: Any, compute: Compute) -> None:
        self.clip = clip.to(compute.device).eval().requires_grad_(False)
        self.compute = compute
        self.size = int(clip.visual.input_resolution)
        self.feature_dim = int(clip.text_projection.shape[1])
        self.context_length = int(clip.context_length)
        clip.visual.to(memory_format=torch.channels_last)  # convolutions are half as fast again on either device
        for block in clip.transformer.resblocks:
            block.attn_mask = block.attn_mask.to(compute.device)  # else it is copied there in every forward pass

    def parameters(self, side: Tower) -> list[nn.Parameter]:
        """The parameters of one side: `image` is everything in `visual`, `text` everything else."""
        return [
            parameter
            for name, parameter in self.clip.named_parameters()
            if name.startswith("visual.") == (side == "image")
        ]

    def checkpoint_blocks(self) -> None:
        """From now on every block of both sides keeps its input alone and is computed again in the backward pass."""
        visual = self.clip.visual
        stages = [visual.layer1, visual.layer2, visual.layer3, visual.layer4] if hasattr(visual, "layer1") else []
        stages += [visual.transformer.resblocks] if hasattr(visual, "transformer") else []
        for block in (block for stage in [*stages, self.clip.transformer.resblocks] for block in stage):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Raw features (B, d) in fp32 of normalized pictures (B, 3, S, S)."""
        features: Tensor = self.clip.encode_image(pixels.contiguous(memory_format=torch.channels_last))
        return features.float()

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Raw features (B, d) in fp32 of tokens (B, L), L as short as the longest text allows."""
        features: Tensor = self.clip.encode_text(tokens)
        return features.float()

    def state(self) -> State:
        """The weights, on the CPU."""
        return {name: tensor.detach().cpu() for name, tensor in self.clip.state_dict().items()}

    def fingerprints(self) -> dict[str, str]:
        """What stands for the weights now: `tower_fingerprints` of them."""
        return tower_fingerprints(self.state())


def tower_fingerprints(state: State) -> dict[str, str]:
    """Fingerprints of a CLIP's weights: of the `image` side, of the `text` side, and of `both`."""
    visual = [name for name in state if name.startswith("visual.")]
    rest = [name for name in state if not name.startswith("visual.")]
    return {"image": fingerprint(state, visual), "text": fingerprint(state, rest), "both": fingerprint(state)}


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts, int32 (N, context length) on the encoder's device; `lengths` on the CPU include both ends."""

    values: Tensor
    lengths: Tensor
    truncated: int

    def batch(self, rows: Tensor) -> Tensor:
        """Tokens of `rows` (on the CPU), cut behind the longest text: exact, since the text encoder is causal."""
        longest = int(self.lengths[rows].max())
        return self.values[:, :longest].index_select(0, rows.to(self.values.device))

    @cached_property
    def by_length(self) -> Tensor:
        """Rows from the shortest to the longest text."""
        return self.lengths.argsort(stable=True)


def tokenize(texts: Sequence[str], context_length: int, device: torch.device) -> Tokens:
    """CLIP's own BPE tokens. Texts that are too long are truncated and counted. A blank text is legal."""
    tokens = import_clip().tokenize(list(texts), context_length=context_length + 1, truncate=True)
    too_long = tokens[:, context_length] != 0
    end = tokens.max(dim=1).values
    tokens = tokens[:, :context_length].int()
    tokens[too_long, -1] = end[too_long].int()
    lengths = tokens.argmax(dim=1) + 1
    return Tokens(tokens.to(device), lengths, int(too_long.sum()))
