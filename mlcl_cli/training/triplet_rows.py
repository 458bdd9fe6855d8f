"""Triplets as row numbers: what a training step indexes with."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlcl_cli.data.records import Triplet
from mlcl_cli.seeding import derive_generator

PAD = -1


@dataclass(frozen=True)
class TripletRows:
    """N triplets as int64 rows, on the CPU, of the distinct `images` and `captions`.

    `references` and `targets` are (N,). `variants` (N, V) are the captions that an epoch draws one of, all equally
    likely. Where a triplet has fewer than V, its row ends in PAD.
    """

    images: tuple[str, ...]
    captions: tuple[str, ...]
    references: Tensor
    targets: Tensor
    variants: Tensor

    def __len__(self) -> int:
        return len(self.references)

    def pairs(self, rows: Tensor) -> Tensor:
        """The references, then the targets, of triplets `rows` (B,): image rows (2B,)."""
        return torch.cat([self.references[rows], self.targets[rows]])

    def draw_captions(self, seed: int, epoch: int) -> Tensor:
        """Draw this epoch's caption row for each triplet (N,)."""
        generator = derive_generator(seed, "captions", epoch)
        counts = (self.variants != PAD).sum(dim=1, keepdim=True)
        if bool((counts == self.variants.shape[1]).all()):
            draw = torch.randint(self.variants.shape[1], (len(self), 1), generator=generator)
        else:
            draw = (torch.rand(len(self), 1, dtype=torch.float64, generator=generator) * counts).long()
        return self.variants.gather(1, draw).squeeze(1)


def index_triplets(triplets: Sequence[Triplet]) -> TripletRows:
    """Number the images and captions of training triplets, each of which has a target."""
    images: dict[str, int] = {}
    captions: dict[str, int] = {}
    references, targets, variants = [], [], []
    width = max(len(triplet.texts) for triplet in triplets)
    for triplet in triplets:
        assert triplet.target is not None
        references.append(images.setdefault(triplet.reference, len(images)))
        targets.append(images.setdefault(triplet.target, len(images)))
        rows = [captions.setdefault(text, len(captions)) for text in triplet.texts]
        variants.append([*rows, *[PAD] * (width - len(rows))])
    return TripletRows(
        tuple(images), tuple(captions), torch.tensor(references), torch.tensor(targets), torch.tensor(variants)
    )
