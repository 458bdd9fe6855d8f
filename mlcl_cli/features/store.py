"""Features of images and captions for one encoder: from the bank where they are frozen, computed where they are not."""

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
from mlcl_cli.features.bank import Bank, Table, older_banks
from mlcl_cli.features.encode_batch import EncodeBatch
from mlcl_cli.formatting import counted
from mlcl_cli.images.augment import RECIPE, Augmentation, random_crop
from mlcl_cli.images.decode import BadImage, open_image, read_files
from mlcl_cli.images.file_stamps import file_stamps
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import Transform, preprocess_pixels
from mlcl_cli.models.compute import choose_encode_batch
from mlcl_cli.models.encoder import Encoder, Tokens, tokenize
from mlcl_cli.progress import Progress
from mlcl_cli.seeding import derive_seed
from mlcl_cli.signals import defer_signals

logger = logging.getLogger(__name__)

VIEWS_AT_ONCE = 64  # whatever is encoded at once: the draws of an augmented view depend on its portion
SECONDS_BETWEEN_SAVES = 60.0
Convert = Callable[[Image.Image, str], Tensor]
Opener = Callable[[Path], Image.Image]
Encode = Callable[[Tensor, Sequence[str]], Tensor]
Files = Sequence[tuple[str, Path]]


@dataclass
class FeatureStore:
    """Computes features with `encoder` and banks them under `folder`, if it `writes`.

    `bad` collects the images that it could not read. Features are raw (not normalized), on the encoder's device, and
    encoded in fp32 whatever the precision of training. `encode_batch` is how many are encoded at once. `stamps_of`
    gives the state of image files by name, without those that cannot be read: features of another state are not used.
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
    bad: dict[str, BadImage] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Taken once: what a frozen tower has banked belongs to the weights as they are now.
        self.fingerprints = self.encoder.fingerprints()
        device = self.encoder.compute.device
        self.at_once = choose_encode_batch(self.encode_batch, device, self.encoder.size)
        self._batch = EncodeBatch(self.at_once)
        if older := [path.name for path in older_banks(self.folder)]:
            what = "feature banks of an older version of mlcl, which are not used and safe to delete"
            logger.info(f"{self.folder} has {what}: {some(older)}")

    def images(self, files: Files) -> Table:
        """Features of pictures, each distinct one encoded once. Unreadable ones are left out and put in `bad`."""
        return self._banked(files, _Recipe("images", self._plain, self._encode_plain, open_image, self.at_once))

    @torch.no_grad()
    def encode_images_now(self, pictures: ImageCache, names: Sequence[str]) -> Table:
        """Features of pictures by the encoder as it is now; nothing is banked."""
        encoded = []
        with self.progress.bar(f"Encoding {counted(len(names), 'image')}", len(names)) as advance:
            for start in range(0, len(names), self.at_once):
                part = names[start : start + self.at_once]
                encoded.append((part, self._encode_plain(pictures.read(part), part)))
                advance(len(part))
        return _table(encoded, self.encoder)

    def views(self, files: Files, count: int, seed: int) -> Tensor:
        """`count` augmented views of each readable picture, decoded once for all: (count, len(files), d)."""
        opener = PaddedImageCache(self.transform)
        augment = Augmentation()
        device = self.encoder.compute.device
        tables = []
        for view in range(count):

            def crop(image: Image.Image, name: str, view: int = view) -> Tensor:
                return random_crop(image, self.transform.size, derive_seed(seed, "view", view, name))

            def encode(crops: Tensor, names: Sequence[str], view: int = view) -> Tensor:
                pixels = augment(crops.to(device), derive_seed(seed, "augment", view, names[0]))
                return self._batch.encode(self.encoder.encode_images, pixels)

            key = {"view": str(view), "seed": str(seed), "transform": repr(opener.transform), "recipe": RECIPE}
            what = f"augmented views, set {view + 1} of {count}: "
            recipe = _Recipe("views", crop, encode, opener, VIEWS_AT_ONCE, what, key)
            tables.append(self._banked(files, recipe).of([name for name, _ in files]))
        return torch.stack(tables)

    def texts(self, captions: Sequence[str], *, banked: bool = True) -> Table:
        """Features of the distinct `captions`; each is encoded once, among captions of about its length."""
        distinct = list(dict.fromkeys(captions))
        if not banked:
            return _table([(distinct, self.encode_tokens(self.tokens(distinct)))] if distinct else [], self.encoder)
        stamps = dict.fromkeys(distinct, "")
        with self._bank(self._key("texts", self.fingerprints.text, {})) as bank:
            if missing := bank.missing(stamps):
                features = self.encode_tokens(self.tokens(missing))
                with defer_signals():
                    bank.add(dict.fromkeys(missing, ""), features)
            return bank.table(stamps, self.encoder.compute.device)

    def tokens(self, captions: Sequence[str]) -> Tokens:
        """Tokens of `captions`; says how many were too long and are truncated."""
        tokens = tokenize(captions, self.encoder.context_length, self.encoder.compute.device)
        if tokens.truncated:
            limit = self.encoder.context_length
            logger.warning(f"{counted(tokens.truncated, 'caption')} longer than {limit} tokens: truncated")
        return tokens

    @torch.no_grad()
    def encode_tokens(self, tokens: Tokens) -> Tensor:
        """Features (N, d); each text is encoded among texts of about its length."""
        device = self.encoder.compute.device
        count = len(tokens.lengths)
        features = torch.empty(count, self.encoder.feature_dim, device=device)
        with self.progress.bar(f"Encoding {counted(count, 'caption')}", count) as advance:
            for rows in tokens.by_length.split(self.at_once):
                features[rows.to(device)] = self._batch.encode(self.encoder.encode_texts, tokens.batch(rows))
                advance(len(rows))
        return features

    def _banked(self, files: Files, recipe: "_Recipe") -> Table:
        key = {"dataset": self.dataset, "transform": repr(self.transform), **recipe.key}
        stamps = self.stamps_of(dict(files))
        with self._bank(self._key(recipe.kind, self.fingerprints.image, key)) as bank:
            missing = set(bank.missing(stamps))
            # Portions are those of all files, so that a build that was cut encodes the rest in the same company.
            starts = range(0, len(files), recipe.portion)
            portions = (files[start : start + recipe.portion] for start in starts)
            wanted = ([(n, path) for n, path in part if n in missing or n not in stamps] for part in portions)
            self._fill(bank, stamps, self._encode([part for part in wanted if part], recipe))
            readable = {name: stamps[name] for name, _ in files if name not in self.bad}
            return bank.table(readable, self.encoder.compute.device)

    @contextmanager
    def _bank(self, key: Mapping[str, str]) -> Iterator[Bank]:
        """The bank for `key`, which one process fills at a time: one that comes second waits, and finds it full."""

        def wait() -> None:
            logger.info(f"Another process is filling {path}: waiting for it")

        path = Bank.path_of(self.folder, key)
        if not self.writes:
            yield Bank(self.folder, key, writes=False)
            return
        with exclusive_lock(path.with_name(f"{path.name}.lock"), wait):
            yield Bank(self.folder, key)

    def _fill(self, bank: Bank, stamps: Mapping[str, str], parts: Iterator[tuple[list[str], Tensor]]) -> None:
        """Adds `parts` as they come, and saves every minute and at the end, however that comes."""
        fresh: list[tuple[list[str], Tensor]] = []
        saved = time.monotonic()

        def save() -> None:
            names = [name for part, _ in fresh for name in part]
            if names:
                bank.add({name: stamps[name] for name in names}, torch.cat([features.cpu() for _, features in fresh]))
                fresh.clear()

        try:
            for part in parts:
                with defer_signals():
                    fresh.append(part)
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        save()
                        saved = time.monotonic()
        finally:
            with defer_signals():
                save()

    @torch.no_grad()
    def _encode(self, portions: Sequence[Files], recipe: "_Recipe") -> Iterator[tuple[list[str], Tensor]]:
        count = sum(len(part) for part in portions)
        if not count:
            return
        results = self._read(portions, recipe)
        with self.progress.bar(f"Encoding {recipe.what}{counted(count, 'image')}", count) as advance:
            for part in portions:
                names, pixels = [], []
                for (name, _path), result in zip(part, results, strict=False):
                    if isinstance(result, BadImage):
                        self.bad[name] = result
                    else:
                        names.append(name)
                        pixels.append(result)
                if names:
                    yield names, recipe.encode(torch.stack(pixels), names)
                advance(len(part))

    def _read(self, portions: Sequence[Files], recipe: "_Recipe") -> Iterator[Tensor | BadImage]:
        """A GPU encodes while the next portion is read; on a CPU the two would only wait for each other's threads."""
        cpu = self.encoder.compute.device.type == "cpu"
        for files in portions if cpu else [[file for part in portions for file in part]]:

            def read(path: Path, position: int, files: Files = files) -> Tensor:
                return recipe.convert(recipe.opener(path), files[position][0])

            results = read_files(files, read, self.workers, ahead=2 * recipe.portion)
            yield from list(results) if cpu else results

    def _plain(self, image: Image.Image, _name: str) -> Tensor:
        return self.transform(image)

    def _encode_plain(self, pixels: Tensor, _names: Sequence[str]) -> Tensor:
        device = self.encoder.compute.device
        return self._batch.encode(lambda part: self.encoder.encode_images(preprocess_pixels(part.to(device))), pixels)

    def _key(self, kind: str, fingerprint: str, extra: Mapping[str, str]) -> dict[str, str]:
        return {"kind": kind, "encoder": fingerprint, "precision": "fp32", **extra}


@dataclass(frozen=True)
class _Recipe:
    """How features of a `kind` come from files: opened, converted one by one, encoded `portion` by portion.

    `what` says in a progress bar what is made of the images; `key` is what the features depend on besides the encoder
    and the transform.
    """

    kind: str
    convert: Convert
    encode: Encode
    opener: Opener
    portion: int
    what: str = ""
    key: Mapping[str, str] = field(default_factory=dict)


def _table(parts: Sequence[tuple[Sequence[str], Tensor]], encoder: Encoder) -> Table:
    names = [name for part, _ in parts for name in part]
    values = [features.to(encoder.compute.device) for _, features in parts]
    joined = torch.cat(values) if values else torch.empty(0, encoder.feature_dim, device=encoder.compute.device)
    return Table({name: row for row, name in enumerate(names)}, joined)
