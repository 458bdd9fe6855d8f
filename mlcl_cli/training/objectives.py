"""What a run minimises: fine-tuning and the combiner, behind one face. The loop never knows the names of losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlcl_cli.images.augment import Augmentation, random_crop
from mlcl_cli.images.decode import read_files
from mlcl_cli.images.image_cache import PaddedImageCache, readable
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.encoder import Encoder, Towers
from mlcl_cli.models.losses import SsclTerm, combiner_logits, combiner_losses, finetune_loss
from mlcl_cli.seeding import derive_seed
from mlcl_cli.training.feature_sources import FeatureSource
from mlcl_cli.training.triplet_rows import TripletRows

VIEWS_AT_ONCE = 256


class Objective(Protocol):
    """What the loop trains."""

    triplets: TripletRows

    def train(self) -> None:
        """Puts the network into training mode."""

    def prepare(self, rows: Tensor, captions: Tensor, epoch: int) -> Any:
        """Reads a batch, in a thread ahead of the step: triplet `rows` (B,) and the caption row drawn for each."""

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """Named summands of the loss."""

    def logging(self) -> dict[str, Tensor]:
        """Figures of the network that are worth a curve."""

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Takes back what `weights` gave."""


@dataclass
class FinetuneObjective:
    """Stage 1 (METHOD.md, Equation 3): the element-wise sum is the query. No augmented view is computed."""

    encoder: Encoder
    triplets: TripletRows
    images: FeatureSource
    texts: FeatureSource

    def train(self) -> None:
        """CLIP stays in eval mode."""

    def prepare(self, rows: Tensor, captions: Tensor, epoch: int) -> Any:  # noqa: ARG002
        """References and targets are read as one batch, so that a picture is encoded once however often it occurs."""
        both = torch.cat([self.triplets.references[rows], self.triplets.targets[rows]])
        return self.images.prepare(both), self.texts.prepare(captions)

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The contrastive loss of stage 1."""
        pictures, captions = batch
        reference, target = self.images.features(pictures).chunk(2)
        return {"contrastive": finetune_loss(reference, self.texts.features(captions), target)}

    def logging(self) -> dict[str, Tensor]:
        """Nothing: the temperature is fixed."""
        return {}

    def weights(self) -> dict[str, Tensor]:
        """All of CLIP."""
        return dict(self.encoder.state())

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """All of CLIP."""
        self.encoder.clip.load_state_dict(dict(weights))


class Views(Protocol):
    """Augmented views of the references."""

    def prepare(self, rows: Tensor, epoch: int) -> Any:
        """Reads what the views of triplets `rows` in `epoch` need."""

    def features(self, batch: Any) -> Tensor:
        """Raw features (B, d)."""


@dataclass(frozen=True)
class FreshViews:
    """Views drawn anew for each triplet in each epoch, through the frozen image encoder; `opener` keeps pictures."""

    encoder: Encoder
    opener: PaddedImageCache
    files: Sequence[tuple[str, Path]]
    references: Tensor
    workers: int
    seed: int
    augment: Augmentation

    def prepare(self, rows: Tensor, epoch: int) -> tuple[Tensor, int]:
        """Random crops, uint8 (B, 3, S, S), and the seed of all that follows."""
        numbers = rows.tolist()
        files = [self.files[row] for row in self.references[rows].tolist()]

        def crop(path: Path, position: int) -> Tensor:
            return random_crop(
                self.opener(path), self.encoder.size, derive_seed(self.seed, "crop", epoch, numbers[position])
            )

        results = read_files(files, crop, self.workers)
        crops = torch.stack([readable(result) for result in results])
        return crops, derive_seed(self.seed, "augment", epoch, numbers[0])

    @torch.no_grad()
    def features(self, batch: tuple[Tensor, int]) -> Tensor:
        """Augments and encodes in chunks."""
        crops, seed = batch
        device = self.encoder.compute.device
        return torch.cat(
            [
                self.encoder.encode_images(self.augment(part.to(device), derive_seed(seed, number)))
                for number, part in enumerate(crops.split(VIEWS_AT_ONCE))
            ]
        )


@dataclass(frozen=True)
class BankedViews:
    """A few views of each reference, encoded once; an epoch draws one of them. `values` is (count, images, d)."""

    values: Tensor
    references: Tensor
    seed: int

    def prepare(self, rows: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Which view of which image."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "view", epoch, int(rows[0])))
        drawn = torch.randint(len(self.values), (len(rows),), generator=generator)
        device = self.values.device
        return drawn.to(device), self.references[rows].to(device)

    def features(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """A gather."""
        return self.values[batch]


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
        """Dropout is active in training only."""
        self.combiner.train()

    def prepare(self, rows: Tensor, captions: Tensor, epoch: int) -> Any:
        """Rows of references, targets and captions, and what the views need."""
        references, targets = self.triplets.references[rows], self.triplets.targets[rows]
        views = self.views.prepare(rows, epoch) if self.views else None
        return self.images.prepare(references), self.images.prepare(targets), self.texts.prepare(captions), views

    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The weighted terms of METHOD.md, Equation 13, that are on."""
        references, targets, captions, views = batch
        images = self.images.features(references)[None]
        if self.views:
            images = torch.cat([images, self.views.features(views)[None]])
        output = self.combiner(self.texts.features(captions), images)
        terms = combiner_logits(self.combiner, output, self.images.features(targets), self.sscl)
        return combiner_losses(self.combiner, terms)

    def logging(self) -> dict[str, Tensor]:
        """Temperatures and the level weight w, where they are learned."""
        combiner = self.combiner
        figures = {
            "temperature": combiner.temperature if combiner.logit_scale is not None else None,
            "temperature_sscl": combiner.sscl_temperature if combiner.logit_scale_sl is not None else None,
            "level_weight": combiner.weight,
        }
        return {name: value.detach() for name, value in figures.items() if value is not None}

    def weights(self) -> dict[str, Tensor]:
        """The combiner's parameters, on its device."""
        return {name: tensor.detach() for name, tensor in self.combiner.state_dict().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """The combiner's parameters."""
        self.combiner.load_state_dict(dict(weights))


def finetune_optimizer(encoder: Encoder, towers: Towers, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW over the parameters of `towers`, which become trainable: betas and eps of METHOD.md, Section 3.2."""
    parameters = encoder.parameters(towers)
    for parameter in parameters:
        parameter.requires_grad_()
    return torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.999), eps=1e-7, fused=True)


def combiner_optimizer(combiner: Combiner, learning_rate: float) -> torch.optim.Optimizer:
    """Adam with `learning_rate`, except 1e-3 for `loss_weight` (METHOD.md, Section 4.4)."""
    level_weight = [combiner.loss_weight] if combiner.loss_weight is not None else []
    rest: list[nn.Parameter] = [p for p in combiner.parameters() if p is not combiner.loss_weight]
    groups: list[dict[str, Any]] = [{"params": rest, "lr": learning_rate}]
    if level_weight:
        groups.append({"params": level_weight, "lr": 1e-3})
    return torch.optim.Adam(groups, fused=True)
