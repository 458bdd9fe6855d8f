"""The baseline that `mlcl` is measured against: a faithful stand-in for the original recipe.

It encodes everything again in every step, decodes and augments with Pillow in four loader workers, pads texts to 77
tokens, computes both branches of the combiner in full, and scores by comparing matrices of strings.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout, normalize, relu
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as tv

from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import QuerySet
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.images.augment import JITTERS
from mlcl_cli.images.decode import open_image
from mlcl_cli.images.transforms import MEAN, STD, Transform
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.compute import Compute
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.models.losses import contrastive
from mlcl_cli.models.weights import import_clip
from mlcl_cli.training.triplet_rows import TripletRows

T = TypeVar("T")
TO_RGB = tv.Lambda(lambda image: image.convert("RGB"))
TO_TENSOR = tv.Compose([tv.ToTensor(), tv.Normalize(MEAN, STD)])


class Items(Dataset[T]):
    """`count` items, each read when it is needed."""

    def __init__(self, count: int, read: Callable[[int], T]) -> None:
        self.count, self.read = count, read

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> T:
        return self.read(index)


def read_images(files: Sequence[tuple[str, Path]], transform: Transform) -> Items[Tensor]:
    """Every file through the transform, as fp32."""
    resize = tv.Resize(transform.size, tv.InterpolationMode.BICUBIC)
    prepare = tv.Compose([transform.pad, resize, tv.CenterCrop(transform.size), TO_RGB, TO_TENSOR])
    return Items(len(files), lambda index: prepare(open_image(files[index][1])))


class TripletImages(NamedTuple):
    """Pixels of a triplet, or of a batch of them; `texts` is one caption for each."""

    reference: Tensor
    augmented: Tensor
    target: Tensor
    texts: Sequence[str]


def read_triplets(files: Sequence[tuple[str, Path]], transform: Transform, rows: TripletRows) -> Items[TripletImages]:
    """Reference, augmented reference, target, and one of the four captions."""
    images = read_images(files, transform)
    flip = tv.RandomHorizontalFlip(p=1.0)
    turns = {turn: tv.RandomRotation((turn, turn)) for turn in (0, 90, 180, 270)}
    flipped_turns = [tv.Compose([flip, turns[turn]]) for turn in (90, 270)]
    augment = tv.Compose(
        [
            transform.pad,
            tv.RandomResizedCrop(transform.size),
            TO_RGB,
            tv.RandomChoice([tv.ColorJitter(**amounts) for amounts in JITTERS]),
            tv.RandomChoice([*turns.values(), flip, tv.RandomVerticalFlip(p=1.0), *flipped_turns]),
            tv.RandomAutocontrast(0.5),
            tv.RandomPerspective(p=0.5),
            tv.RandomGrayscale(0.5),
            TO_TENSOR,
        ]
    )

    def read(index: int) -> TripletImages:
        reference, target = int(rows.references[index]), int(rows.targets[index])
        caption = rows.captions[int(rows.variants[index][torch.randint(4, (1,))])]
        return TripletImages(images[reference], augment(open_image(files[reference][1])), images[target], caption)

    return Items(len(rows), read)


def batches(dataset: Dataset[T], batch_size: int, *, training: bool = False) -> Iterator[T]:
    """The loader of the original, with four workers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # four workers are the recipe
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        pinned = torch.cuda.is_available()
        return iter(
            DataLoader(dataset, batch_size, shuffle=training, drop_last=training, num_workers=4, pin_memory=pinned)
        )


def copy_clip(encoder: Encoder) -> Any:
    """A copy of the network in the default memory format."""
    clip = deepcopy(encoder.clip)
    clip.visual.to(memory_format=torch.contiguous_format)
    return clip


def encode(function: Callable[[Tensor], Tensor], inputs: Tensor, compute: Compute) -> Tensor:
    """Raw features (B, d) of pixels or of tokens (B, 77), in parts of 64."""
    with compute.autocast():
        return torch.vstack([function(part).float() for part in inputs.to(compute.device).split(64)])


def encode_batch(clip: Any, texts: Sequence[str], images: Sequence[Tensor], compute: Compute) -> list[Tensor]:
    """Raw features (B, d) of the texts, then of each of the `images`."""
    tokens = import_clip().tokenize(list(texts), truncate=True)
    text = encode(clip.encode_text, tokens, compute)
    return [text, *(encode(clip.encode_image, pixels, compute) for pixels in images)]


def train_epoch(
    dataset: Items[TripletImages],
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[TripletImages], Tensor],
) -> None:
    """Train on every batch, and read every loss."""
    for batch in batches(dataset, batch_size, training=True):
        loss = loss_of(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()


def combiner_loss(combiner: Combiner, text: Tensor, image: Tensor, augmented: Tensor, target: Tensor) -> Tensor:
    """METHOD.md, Equation 13, term by term."""
    t = dropout(relu(combiner.text_projection_layer(text)), 0.5, combiner.training)

    def branch(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # Equations 4–9, as written: r, f_c, f_h
        i = dropout(relu(combiner.image_projection_layer(image)), 0.5, combiner.training)
        r = torch.cat([t, i], dim=-1)
        c = dropout(relu(combiner.combiner_layer(r)), 0.5, combiner.training)
        share = torch.sigmoid(combiner.dynamic_scalar(r))
        high = normalize(combiner.output_layer(c) + share * text + (1 - share) * image, dim=-1)
        return r, normalize(combiner.combiner_proj(relu(c)), dim=-1), high

    r, mid, high = branch(image)
    r_augmented, _, high_augmented = branch(augmented)
    goal, tau, tau_s = normalize(target, dim=-1), combiner.temperature, combiner.sscl_temperature
    low, w = normalize(image + text, dim=-1), combiner.weight
    assert w is not None
    loss = (
        2 * w * contrastive(tau * high @ goal.T)
        + (2 - 2 * w) * contrastive(tau * mid @ goal.T)
        + contrastive(tau * low @ goal.T)
        + contrastive(tau_s * normalize(r, dim=-1) @ normalize(r_augmented, dim=-1).T)
        + contrastive(tau_s * high @ high_augmented.T)
    )
    return loss.squeeze()


@torch.no_grad()
def validate(queries: QuerySet, images: FeatureTable, texts: FeatureTable, protocol: Protocol) -> dict[str, float]:
    """Recalls of the element-wise sum by sorting everything and comparing matrices of strings."""
    triplets, count = queries.triplets, len(queries.triplets)
    references = [triplet.reference for triplet in triplets]
    text = torch.vstack([texts.values[texts.rows[triplet.captions[0]]] for triplet in triplets])
    image = torch.vstack([images.values[images.rows[name]] for name in references])
    scores = normalize(image + text, dim=-1) @ normalize(images.values, dim=-1).T
    ranked = np.array(queries.gallery)[torch.argsort(1 - scores, dim=-1).cpu().numpy()]
    if protocol.exclude_reference:
        mask = ranked != np.repeat(np.array(references), ranked.shape[1]).reshape(count, -1)
        ranked = ranked[mask].reshape(count, -1)
    targets = np.array([triplet.target for triplet in triplets])
    labels = torch.tensor(ranked == np.repeat(targets, ranked.shape[1]).reshape(count, -1))
    recalls = {f"recall@{k}": float(labels[:, :k].sum() / count) * 100 for k in protocol.recall_at}
    if protocol.subset_recall_at:
        group = np.array([[name for name in triplet.members if name != triplet.reference] for triplet in triplets])
        inside = (ranked[..., None] == group[:, None, :]).sum(-1).astype(bool)
        labels = labels[torch.from_numpy(inside)].reshape(count, -1)
        recalls |= {f"recall_subset@{k}": float(labels[:, :k].sum() / count) * 100 for k in protocol.subset_recall_at}
    return recalls
