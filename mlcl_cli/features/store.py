"""Features of images and captions by one encoder: from the bank if the tower is frozen, else computed."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from mlcl_cli.atomic_files import exclusive_lock
from mlcl_cli.errors import some
from mlcl_cli.features.bank import Bank, FeatureTable, older_banks
from mlcl_cli.features.encode_batch import EncodeBatch
from mlcl_cli.formatting import counted
from mlcl_cli.images.augment import RECIPE, Augmentation, random_crop
from mlcl_cli.images.decode import BadImage, BadImagesError, open_image, read_files
from mlcl_cli.images.file_stamps import file_stamps
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import Transform, preprocess_pixels
from mlcl_cli.models.compute import choose_encode_batch
from mlcl_cli.models.encoder import Encoder, Tokens, tokenize
from mlcl_cli.progress import Progress
from mlcl_cli.seeding import derive_seed
from mlcl_cli.signals import defer_signals

logger = logging.getLogger(__name__)

VIEWS_PER_BATCH = 64  # fixed, since the draws of an augmented view depend on its batch
SECONDS_BETWEEN_SAVES = 60.0
Convert = Callable[[Image.Image, str], Tensor]
Opener = Callable[[Path], Image.Image]
Encode = Callable[[Tensor, Sequence[str]], Tensor]
Files = Sequence[tuple[str, Path]]


@dataclass(frozen=True)
class EncodedImages:
    """Features of the readable images, and the `bad` ones by name."""

    table: FeatureTable
    bad: Mapping[str, BadImage]


@dataclass(kw_only=True)
class FeatureStore:
    """Computes features with `encoder` and, if it `writes`, banks them under `folder`.

    Features are raw (not normalized), on the encoder's device, and encoded in fp32 whatever the precision of training,
    `encode_batch` at a time. `stamps_of` returns the stamps of image files by name, without those that cannot be
    accessed; features with another stamp are not used.
    """

    folder: Path
    encoder: Encoder
    transform: Transform
    workers: int
    progress: Progress
    dataset: str
    writes: bool = True
    encode_batch: int | Literal["auto"] = "auto"
    stamps_of: Callable[[Mapping[str, Path]], Mapping[str, str]] = file_stamps

    def __post_init__(self) -> None:
        # Taken once: the banked features of a frozen tower belong to the weights as they are before training.
        self.fingerprints = self.encoder.fingerprints()
        device = self.encoder.compute.device
        self.batch_size = choose_encode_batch(self.encode_batch, device, self.encoder.size)
        self._batch = EncodeBatch(self.batch_size)
        if older := [path.name for path in older_banks(self.folder)]:
            what = "feature banks of an older version of mlcl, which are not used and are safe to delete"
            logger.info(f"{self.folder} has {what}: {some(older)}")

    def images(self, files: Files) -> EncodedImages:
        """Features of images, each distinct one encoded once."""
        recipe = _Recipe(
            kind="images",
            convert=lambda image, _name: self.transform(image),
            encode=self._encode_pixels,
            opener=open_image,
            batch_size=self.batch_size,
        )
        return self._banked(files, recipe)

    @torch.no_grad()
    def encode_images_now(self, cache: ImageCache, names: Sequence[str]) -> FeatureTable:
        """Features of images by the encoder as it is now; nothing is banked."""
        parts = []
        with self.progress.bar(f"Encoding {counted(len(names), 'image')}", len(names)) as advance:
            for start in range(0, len(names), self.batch_size):
                batch = names[start : start + self.batch_size]
                parts.append(self._encode_pixels(cache.read(batch), batch))
                advance(len(batch))
        return self._table(names, parts)

    def views(self, files: Files, count: int, seed: int) -> Tensor:
        """`count` augmented views of each image, decoded once for all: (count, len(files), d).

        Raises BadImagesError if one cannot be read.
        """
        opener = PaddedImageCache(self.transform)
        augment = Augmentation()
        device = self.encoder.compute.device
        views = []
        for view in range(count):

            def crop(image: Image.Image, name: str, view: int = view) -> Tensor:
                return random_crop(image, self.transform.size, derive_seed(seed, "view", view, name))

            def encode(crops: Tensor, names: Sequence[str], view: int = view) -> Tensor:
                pixels = augment(crops.to(device), derive_seed(seed, "augment", view, names[0]))
                return self._batch.encode(self.encoder.encode_images, pixels)

            recipe = _Recipe(
                kind="views",
                convert=crop,
                encode=encode,
                opener=opener,
                batch_size=VIEWS_PER_BATCH,
                label=f"augmented views, set {view + 1} of {count}: ",
                key={"view": str(view), "seed": str(seed), "transform": repr(opener.transform), "recipe": RECIPE},
            )
            encoded = self._banked(files, recipe)
            if encoded.bad:
                raise BadImagesError(list(encoded.bad.values()), "Fix them, and run the command again")
            views.append(encoded.table.of([name for name, _ in files]))
        return torch.stack(views)

    def texts(self, captions: Sequence[str], *, banked: bool = True) -> FeatureTable:
        """Features of the distinct `captions`, each encoded once among captions of about its length."""
        distinct = list(dict.fromkeys(captions))
        if not banked:
            return self._table(distinct, [self.encode_tokens(self.tokens(distinct))] if distinct else [])
        stamps = dict.fromkeys(distinct, "")
        with self._bank(self._key("texts", self.fingerprints.text, {})) as bank:
            if missing := bank.missing(stamps):
                features = self.encode_tokens(self.tokens(missing))
                with defer_signals():
                    bank.add(dict.fromkeys(missing, ""), features)
            return bank.table(stamps, self.encoder.compute.device)

    def tokens(self, captions: Sequence[str]) -> Tokens:
        """Tokens of `captions`; warns how many were truncated."""
        tokens = tokenize(captions, self.encoder.context_length, self.encoder.compute.device)
        if tokens.truncated:
            limit = self.encoder.context_length
            logger.warning(f"{counted(tokens.truncated, 'caption')} longer than {limit} tokens: truncated")
        return tokens

    @torch.no_grad()
    def encode_tokens(self, tokens: Tokens) -> Tensor:
        """Features (N, d); each text is encoded among texts of about its length."""
        device, count = self.encoder.compute.device, len(tokens.lengths)
        features = torch.empty(count, self.encoder.feature_dim, device=device)
        with self.progress.bar(f"Encoding {counted(count, 'caption')}", count) as advance:
            for rows in tokens.by_length.split(self.batch_size):
                features[rows.to(device)] = self._batch.encode(self.encoder.encode_texts, tokens.batch(rows))
                advance(len(rows))
        return features

    def _encode_pixels(self, pixels: Tensor, _names: Sequence[str]) -> Tensor:
        device = self.encoder.compute.device
        return self._batch.encode(lambda part: self.encoder.encode_images(preprocess_pixels(part.to(device))), pixels)

    def _banked(self, files: Files, recipe: "_Recipe") -> EncodedImages:
        key = {"dataset": self.dataset, "transform": repr(self.transform), **recipe.key}
        stamps = self.stamps_of(dict(files))
        with self._bank(self._key(recipe.kind, self.fingerprints.image, key)) as bank:
            missing = set(bank.missing(stamps))
            # Batches are those of all files, so that a build that was interrupted ends in the same features.
            starts = range(0, len(files), recipe.batch_size)
            batches = (files[start : start + recipe.batch_size] for start in starts)
            needed = ([file for file in batch if file[0] in missing or file[0] not in stamps] for batch in batches)
            bad = self._fill(bank, stamps, [batch for batch in needed if batch], recipe)
            readable = {name: stamps[name] for name, _ in files if name not in bad}
            return EncodedImages(bank.table(readable, self.encoder.compute.device), bad)

    @contextmanager
    def _bank(self, key: Mapping[str, str]) -> Iterator[Bank]:
        """The bank for `key`. One process fills it at a time; the next one waits, and finds it full."""

        def wait() -> None:
            logger.info(f"Another process is filling {path}: waiting for it")

        path = Bank.path_of(self.folder, key)
        if not self.writes:
            yield Bank(self.folder, key, writes=False)
            return
        with exclusive_lock(path.with_name(f"{path.name}.lock"), wait):
            yield Bank(self.folder, key)

    @torch.no_grad()
    def _fill(
        self, bank: Bank, stamps: Mapping[str, str], batches: Sequence[Files], recipe: "_Recipe"
    ) -> dict[str, BadImage]:
        """Encode `batches`, save every minute and at the end, even on an error, and return the bad images by name."""
        if not batches:
            return {}
        count = sum(map(len, batches))
        results = self._read(batches, recipe)
        bad: dict[str, BadImage] = {}
        unsaved: dict[str, Tensor] = {}
        saved = time.monotonic()

        def save() -> None:
            if unsaved:
                bank.add({name: stamps[name] for name in unsaved}, torch.stack([*unsaved.values()]))
                unsaved.clear()

        try:
            with self.progress.bar(f"Encoding {recipe.label}{counted(count, 'image')}", count) as advance:
                for batch in batches:
                    pixels = {}
                    for (name, _path), result in zip(batch, results, strict=False):
                        if isinstance(result, BadImage):
                            bad[name] = result
                        else:
                            pixels[name] = result
                    if pixels:
                        features = recipe.encode(torch.stack([*pixels.values()]), [*pixels])
                        with defer_signals():
                            unsaved |= zip(pixels, features, strict=True)
                            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                                save()
                                saved = time.monotonic()
                    advance(len(batch))
        finally:
            with defer_signals():
                save()
        return bad

    def _read(self, batches: Sequence[Files], recipe: "_Recipe") -> Iterator[Tensor | BadImage]:
        """Read ahead while a GPU encodes; on a CPU, reading and encoding would only compete for its cores."""
        cpu = self.encoder.compute.device.type == "cpu"
        for files in batches if cpu else [[file for batch in batches for file in batch]]:

            def read(path: Path, position: int, files: Files = files) -> Tensor:
                return recipe.convert(recipe.opener(path), files[position][0])

            results = read_files(files, read, self.workers, ahead=2 * recipe.batch_size)
            yield from list(results) if cpu else results

    def _key(self, kind: str, fingerprint: str, extra: Mapping[str, str]) -> dict[str, str]:
        return {"kind": kind, "encoder": fingerprint, "precision": "fp32", **extra}

    def _table(self, names: Sequence[str], parts: Sequence[Tensor]) -> FeatureTable:
        device = self.encoder.compute.device
        values = torch.cat([part.to(device) for part in (*parts, torch.empty(0, self.encoder.feature_dim))])
        return FeatureTable({name: row for row, name in enumerate(names)}, values)


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How features of a `kind` come from files: opened, converted one by one, encoded `batch_size` at a time.

    `label` names them in a progress bar; `key` is what they depend on besides the encoder and the transform.
    """

    kind: str
    convert: Convert
    encode: Encode
    opener: Opener
    batch_size: int
    label: str = ""
    key: Mapping[str, str] = field(default_factory=dict)
