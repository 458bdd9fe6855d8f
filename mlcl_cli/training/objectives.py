"""What a run minimizes: one objective for fine-tuning, one for the combiner. The loop knows neither."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from mlcl_cli.images.augment import Augmentation, random_crop
from mlcl_cli.images.decode import read_files
from mlcl_cli.images.image_cache import PaddedImageCache, readable
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.encoder import Encoder, Towers
from mlcl_cli.models.losses import SsclTerm, combiner_logits, combiner_losses, finetune_loss
from mlcl_cli.seeding import derive_generator, derive_seed
from mlcl_cli.training.feature_sources import Deferred, FeatureSource
from mlcl_cli.training.triplet_rows import TripletRows

VIEWS_PER_CHUNK = 256


@dataclass(frozen=True)
class Batch:
    """Raw features: `images` are the references, then the targets (2B, d); `views` (B, d) is None without SSCL."""

    images: Deferred
    captions: Deferred
    views: Deferred | None = None


class Objective(Protocol):
    """What the loop trains."""

    triplets: TripletRows

    def train(self) -> None:
        """Put the network into training mode."""

    def prepare(self, rows: Tensor, captions: Tensor, epoch: int) -> Batch:
        """Read a batch, in a thread ahead of the step: triplet `rows` (B,) and the caption row drawn for each."""

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The summands of the loss by name."""

    def logging(self) -> dict[str, Tensor]:
        """Scalars of the network that are worth a curve."""

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Load what `weights` returned."""


@dataclass
class FinetuneObjective:
    """Stage 1 (METHOD.md, Equation 3): the element-wise sum is the query."""

    encoder: Encoder
    triplets: TripletRows
    images: FeatureSource
    texts: FeatureSource

    def train(self) -> None:
        pass  # CLIP stays in eval mode

    def prepare(self, rows: Tensor, captions: Tensor, epoch: int) -> Batch:  # noqa: ARG002
        """Read references and targets as one batch, so that each image is encoded once however often it occurs."""
        return Batch(self.images.prepare(self.triplets.pairs(rows)), self.texts.prepare(captions))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        reference, target = batch.images().chunk(2)
        return {"contrastive": finetune_loss(reference, batch.captions(), target)}

    def logging(self) -> dict[str, Tensor]:
        return {}

    def weights(self) -> dict[str, Tensor]:
        return dict(self.encoder.state())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self.encoder.clip.load_state_dict(dict(weights))


@dataclass(frozen=True)
class FreshViews:
    """Augmented views of the references (METHOD.md, Section 7.2), drawn for each triplet in each epoch.

    They pass through the frozen image encoder; `opener` keeps images in memory.
    """

    encoder: Encoder
    opener: PaddedImageCache
    files: Sequence[tuple[str, Path]]
    references: Tensor
    workers: int
    seed: int
    augment: Augmentation

    def prepare(self, rows: Tensor, epoch: int) -> Deferred:
        """Crop the references; the step augments and encodes them in chunks."""
        crops = self.crops(rows, epoch)
        seed = derive_seed(self.seed, "augment", epoch, int(rows[0]))

        @torch.no_grad()
        def encode() -> Tensor:
            chunks = (chunk.to(self.encoder.compute.device) for chunk in crops.split(VIEWS_PER_CHUNK))
            views = (self.augment(chunk, derive_seed(seed, number)) for number, chunk in enumerate(chunks))
            return torch.cat([self.encoder.encode_images(view) for view in views])

        return encode

    def crops(self, rows: Tensor, epoch: int) -> Tensor:
        """Random crops of the references, uint8 (B, 3, S, S)."""
        triplets = rows.tolist()
        files = [self.files[row] for row in self.references[rows].tolist()]

        def crop(path: Path, position: int) -> Tensor:
            seed = derive_seed(self.seed, "crop", epoch, triplets[position])
            return random_crop(self.opener(path), self.encoder.size, seed)

        return torch.stack([readable(result) for result in read_files(files, crop, self.workers)])


@dataclass(frozen=True)
class BankedViews:
    """A few views of each image, encoded once: `values` (count, images, d). An epoch draws one for each reference."""

    values: Tensor
    references: Tensor
    seed: int

    def prepare(self, rows: Tensor, epoch: int) -> Deferred:
        generator = derive_generator(self.seed, "view", epoch, int(rows[0]))
        views = torch.randint(len(self.values), (len(rows),), generator=generator).to(self.values.device)
        images = self.references[rows].to(self.values.device)
        return lambda: self.values[views, images]


Views = FreshViews | BankedViews


@dataclass
class CombinerObjective:
    """Stage 2 (METHOD.md, Equations 11–13): mCCL and SSCL on frozen features. `views` is None without SSCL."""

    combiner: Combiner
    triplets: TripletRows
    images: FeatureSource
    texts: FeatureSource
    views: Views | None
    sscl: tuple[SsclTerm, ...]

    def train(self) -> None:
        self.combiner.train()

    def prepare(self, rows: Tensor, captions: Tensor, epoch: int) -> Batch:
        return Batch(
            self.images.prepare(self.triplets.pairs(rows)),
            self.texts.prepare(captions),
            None if self.views is None else self.views.prepare(rows, epoch),
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The weighted terms of METHOD.md, Equation 13, that are on."""
        references, targets = batch.images().chunk(2)
        images = torch.stack([references] if batch.views is None else [references, batch.views()])
        output = self.combiner(batch.captions(), images)
        return combiner_losses(self.combiner, combiner_logits(self.combiner, output, targets, self.sscl))

    def logging(self) -> dict[str, Tensor]:
        """Temperatures and the level weight w, if they are learned."""
        combiner = self.combiner
        scalars = {
            "temperature": None if combiner.logit_scale is None else combiner.temperature,
            "temperature_sscl": None if combiner.logit_scale_sl is None else combiner.sscl_temperature,
            "level_weight": combiner.weight,
        }
        return {name: value.detach() for name, value in scalars.items() if value is not None}

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.combiner.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        self.combiner.load_state_dict(dict(weights))


def finetune_optimizer(encoder: Encoder, towers: Towers, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW over the parameters of `towers`, which become trainable: betas and eps of METHOD.md, Section 3.2."""
    parameters = encoder.parameters(towers)
    for parameter in parameters:
        parameter.requires_grad_()
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.999), eps=1e-7, fused=True)


def combiner_optimizer(combiner: Combiner, learning_rate: float) -> torch.optim.Optimizer:
    """Adam with `learning_rate`, except for `loss_weight`, whose rate is 1e-3 (METHOD.md, Section 4.4)."""
    level_weight = combiner.loss_weight
    rest = [parameter for parameter in combiner.parameters() if parameter is not level_weight]
    groups: list[dict[str, object]] = [{"params": rest, "lr": learning_rate}]
    if level_weight is not None:
        groups.append({"params": [level_weight], "lr": 1e-3})
    return torch.optim.Adam(groups, fused=True)


def cosine_restarts(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.CosineAnnealingWarmRestarts:
    """Cosine annealing with warm restarts; T_0 counts epochs, and both numbers are METHOD.md, Section 4.5."""
    return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, eta_min=1e-6)
