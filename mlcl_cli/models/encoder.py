"""CLIP's two encoders on a device, and the tokens that the text encoder reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mlcl_cli.models.compute import Compute
from mlcl_cli.models.weights import State, fingerprint, import_clip

Tower = Literal["text", "image"]
Towers = frozenset[Tower]
IMAGE_TOWER: Towers = frozenset({"image"})
BOTH_TOWERS: Towers = frozenset({"text", "image"})
TOWERS: Mapping[str, Towers] = {"text": BOTH_TOWERS - IMAGE_TOWER, "image": IMAGE_TOWER, "both": BOTH_TOWERS}


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What identifies a CLIP's weights: those of each tower, and of both together."""

    text: str
    image: str
    both: str

    @classmethod
    def of(cls, state: State) -> Self:
        """Fingerprints of a state dict."""
        image = {name for name in state if _is_visual(name)}
        return cls(fingerprint(state, state.keys() - image), fingerprint(state, image), fingerprint(state))

    def changed_towers(self, base: "Fingerprints") -> list[Tower]:
        """The towers whose weights differ from `base`, text first."""
        towers: tuple[Tower, Tower] = ("text", "image")
        return [tower for tower in towers if getattr(self, tower) != getattr(base, tower)]


class Encoder:
    """CLIP in eval mode: batch-norm statistics stay fixed, even in fine-tuning (METHOD.md, Section 2).

    Encodes in fp32, or in mixed precision within a training step's autocast.
    """

    def __init__(self, clip: Any, compute: Compute) -> None:
        self.clip = clip.to(compute.device).eval().requires_grad_(False)
        self.compute = compute
        self.size = int(clip.visual.input_resolution)
        self.feature_dim = int(clip.text_projection.shape[1])
        self.context_length = int(clip.context_length)
        clip.visual.to(memory_format=torch.channels_last)  # convolutions take two thirds of the time (measured)
        for block in clip.transformer.resblocks:
            block.attn_mask = block.attn_mask.to(compute.device)  # or every forward pass copies it

    def parameters(self, towers: Towers) -> list[nn.Parameter]:
        """Parameters of `towers`, text first: the image tower is `visual`, the text tower everything else."""
        named = sorted(self.clip.named_parameters(), key=lambda item: _is_visual(item[0]))
        return [parameter for name, parameter in named if ("image" if _is_visual(name) else "text") in towers]

    def checkpoint_blocks(self) -> None:
        """Use activation checkpointing: each block of both towers keeps its input and is recomputed in backward."""
        visual = self.clip.visual
        stages = [getattr(visual, f"layer{number}") for number in range(1, 5) if hasattr(visual, f"layer{number}")]
        stages += [network.transformer.resblocks for network in (visual, self.clip) if hasattr(network, "transformer")]
        for block in chain.from_iterable(stages):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Raw features (B, d) in fp32 of normalized images (B, 3, S, S)."""
        features: Tensor = self.clip.encode_image(pixels.contiguous(memory_format=torch.channels_last)).float()
        return features

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Raw features (B, d) in fp32 of tokens (B, L); L may be cut to the longest text."""
        features: Tensor = self.clip.encode_text(tokens).float()
        return features

    def state(self) -> State:
        """The weights, on the CPU."""
        return {name: tensor.detach().cpu() for name, tensor in self.clip.state_dict().items()}

    def fingerprints(self) -> Fingerprints:
        """Fingerprints of the current weights."""
        return Fingerprints.of(self.state())


def _is_visual(name: str) -> bool:
    return name.startswith("visual.")


@dataclass(frozen=True)
class Tokens:
    """Texts as int32 `values` (N, context length), on the encoder's device.

    `lengths`, on the CPU, include the start and end tokens; `truncated` is how many texts were too long.
    """

    values: Tensor
    lengths: Tensor
    truncated: int

    def batch(self, rows: Tensor) -> Tensor:
        """Tokens of `rows` (on the CPU), cut after the longest text: exact, since the text encoder is causal."""
        longest = int(self.lengths[rows].max())
        return self.values[:, :longest].index_select(0, rows.to(self.values.device))


def tokenize(texts: Sequence[str], context_length: int, device: torch.device) -> Tokens:
    """CLIP's BPE tokens. Texts that are too long are truncated and counted; a blank text is valid."""
    tokens = import_clip().tokenize(list(texts), context_length=context_length + 1, truncate=True)
    too_long = tokens[:, context_length] != 0
    end = tokens.max(dim=1).values
    tokens = tokens[:, :context_length].int()
    tokens[too_long, -1] = end[too_long].int()
    return Tokens(tokens.to(device), tokens.argmax(dim=1) + 1, int(too_long.sum()))
