"""The plain way: a faithful stand-in for the original recipe, which is what `mlcl` is measured against.

Everything is encoded anew in every step, four loader workers decode and augment with Pillow, texts are 77 tokens long,
both branches of the combiner are computed in full, and metrics compare matrices of strings.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, relu
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as tv

from mlcl_cli.images.augment import JITTERS
from mlcl_cli.images.decode import open_image
from mlcl_cli.images.transforms import MEAN, STD, Transform
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.losses import contrastive
from mlcl_cli.models.weights import import_clip
from mlcl_cli.training.triplet_rows import TripletRows

WORKERS = 4
ENCODED_AT_ONCE = 64


class Photographs(Dataset[Tensor]):
    """Every file through the transform, as fp32."""

    def __init__(self, files: Sequence[tuple[str, Path]], transform: Transform) -> None:
        self.files, self.transform = files, transform
        self.to_tensor = tv.Compose([tv.ToTensor(), tv.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        return self.preprocess(self.files[index][1])

    def preprocess(self, path: Path) -> Tensor:
        """Pad, resize, crop, RGB, tensor, preprocess_pixels."""
        size = self.transform.size
        padded = self.transform.pad(open_image(path))
        resized = tv.functional.resize(padded, [size], tv.InterpolationMode.BICUBIC)
        tensor: Tensor = self.to_tensor(tv.functional.center_crop(resized, [size]).convert("RGB"))
        return tensor


class Triplets(Dataset[tuple[Tensor, Tensor, Tensor, str]]):
    """Reference, augmented reference, target and a caption of the four."""

    def __init__(self, files: Sequence[tuple[str, Path]], transform: Transform, rows: TripletRows) -> None:
        self.photographs, self.rows = Photographs(files, transform), rows
        symmetries = [tv.RandomRotation((turn, turn)) for turn in (0, 90, 180, 270)]
        symmetries += [tv.RandomHorizontalFlip(p=1.0), tv.RandomVerticalFlip(p=1.0)]
        symmetries += [
            tv.Compose([tv.RandomHorizontalFlip(p=1.0), tv.RandomRotation((turn, turn))]) for turn in (90, 270)
        ]
        self.augment = tv.Compose(
            [
                tv.RandomResizedCrop(transform.size),
                tv.Lambda(lambda image: image.convert("RGB")),
                tv.RandomChoice([tv.ColorJitter(**amounts) for amounts in JITTERS]),
                tv.RandomChoice(symmetries),
                tv.RandomAutocontrast(0.5),
                tv.RandomPerspective(p=0.5),
                tv.RandomGrayscale(0.5),
                self.photographs.to_tensor,
            ]
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor, str]:
        reference, target = int(self.rows.references[index]), int(self.rows.targets[index])
        caption = self.rows.captions[int(self.rows.variants[index][torch.randint(4, (1,))])]
        path = self.photographs.files[reference][1]
        augmented = self.augment(self.photographs.transform.pad(open_image(path)))
        return self.photographs[reference], augmented, self.photographs[target], caption


def batches(dataset: Dataset[Any], batch_size: int, *, training: bool) -> Iterator[Any]:
    """The loader of the original."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create")  # four workers are the recipe
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size,
            shuffle=training,
            drop_last=training,
            num_workers=WORKERS,
            pin_memory=torch.cuda.is_available(),
        )
        return iter(loader)


@dataclass(frozen=True)
class BaselineEncoder:
    """CLIP as the original calls it: chunks of 64, whole contexts, no memory format of its own."""

    clip: Any
    device: torch.device
    dtype: torch.dtype | None

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Raw features (B, d)."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            chunks = pixels.to(self.device).split(ENCODED_AT_ONCE)
            return torch.vstack([self.clip.encode_image(chunk).float() for chunk in chunks])

    def encode_texts(self, captions: Sequence[str]) -> Tensor:
        """Raw features (B, d)."""
        return self.tokens(import_clip().tokenize(list(captions), truncate=True))

    def tokens(self, tokens: Tensor) -> Tensor:
        """Raw features (B, d) of whole contexts (B, 77)."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            chunks = tokens.to(self.device).split(ENCODED_AT_ONCE)
            return torch.vstack([self.clip.encode_text(chunk).float() for chunk in chunks])


def branch(combiner: Combiner, t: Tensor, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One branch of METHOD.md, Equations 4–9, as written: r, f_c, f_h."""
    drop = torch.nn.functional.dropout
    i = drop(relu(combiner.image_projection_layer(image)), 0.5, combiner.training)
    r = torch.cat([t, i], dim=-1)
    c = drop(relu(combiner.combiner_layer(r)), 0.5, combiner.training)
    share = torch.sigmoid(combiner.dynamic_scalar(r))
    high = normalize(combiner.output_layer(c) + share * text + (1 - share) * image, dim=-1)
    return r, normalize(combiner.combiner_proj(relu(c)), dim=-1), high


def combiner_loss(combiner: Combiner, text: Tensor, image: Tensor, augmented: Tensor, target: Tensor) -> Tensor:
    """METHOD.md, Equation 13, term by term."""
    t = torch.nn.functional.dropout(relu(combiner.text_projection_layer(text)), 0.5, combiner.training)
    r, mid, high = branch(combiner, t, text, image)
    r_augmented, _, high_augmented = branch(combiner, t, text, augmented)
    goal, tau, tau_s = normalize(target, dim=-1), combiner.temperature, combiner.sscl_temperature
    low, w = normalize(image + text, dim=-1), combiner.weight
    assert w is not None
    losses = (
        2 * w * contrastive(tau * high @ goal.T),
        (2 - 2 * w) * contrastive(tau * mid @ goal.T),
        contrastive(tau * low @ goal.T),
        contrastive(tau_s * normalize(r, dim=-1) @ normalize(r_augmented, dim=-1).T),
        contrastive(tau_s * high @ high_augmented.T),
    )
    return torch.stack([loss.squeeze() for loss in losses]).sum()


def string_recalls(
    queries: Tensor,
    gallery: Tensor,
    names: Sequence[str],
    targets: Sequence[str],
    at: Sequence[int],
    references: Sequence[str] | None = None,
    members: Sequence[Sequence[str]] | None = None,
) -> dict[str, float]:
    """Recalls by sorting everything and comparing matrices of names, as the original does.

    `references` are taken out of the ranking; `members` are each query's five others of its image set.
    """
    order = torch.argsort(1 - queries @ gallery.T, dim=-1).cpu()
    ranked = np.array(names)[order.numpy()]
    count = len(targets)
    if references is not None:
        mask = ranked != np.repeat(np.array(references), len(names)).reshape(count, -1)
        ranked = ranked[mask].reshape(count, len(names) - 1)
    labels = torch.tensor(ranked == np.repeat(np.array(targets), ranked.shape[1]).reshape(count, -1))
    figures = {f"recall@{k}": float(labels[:, :k].sum() / count) * 100 for k in at}
    if members is not None:
        group = np.array(members)
        inside = (ranked[..., None] == group[:, None, :]).sum(-1).astype(bool)
        group_labels = labels[torch.from_numpy(inside)].reshape(count, -1)
        figures |= {f"recall_subset@{k}": float(group_labels[:, :k].sum() / count) * 100 for k in (1, 2, 3)}
    return figures
