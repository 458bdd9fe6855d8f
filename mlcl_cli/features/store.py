"""Features of images and captions by one encoder: from the bank if the tower is frozen, else computed."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Generic, Literal, TypeVar

import torch
from torch import Tensor

from mlcl_cli.atomic_files import exclusive_lock
from mlcl_cli.errors import MachineError, is_out_of_memory, some
from mlcl_cli.features.bank import Bank, FeatureTable, older_banks
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
Files = Sequence[tuple[str, Path]]
Note = TypeVar("Note")
Result = TypeVar("Result")


@dataclass(frozen=True)
class EncodedImages:
    """Features of the readable images, and the `bad` ones by name."""

    table: FeatureTable
    bad: Mapping[str, BadImage]


@dataclass(frozen=True)
class EncodedBatch(Generic[Note]):
    """Raw features (N, d) of the readable images of a batch, in fp32 on the CPU, and what was noted of each.

    `bad` are the batch's other images.
    """

    features: Tensor
    notes: Sequence[Note]
    bad: Sequence[BadImage]


@dataclass(frozen=True, kw_only=True)
class _Recipe:
    """How features come from files: read one by one by path and name, encoded `batch_size` at a time with their names.

    `label` names them in a progress bar; `key` is what they depend on besides the encoder and the data set.
    """

    kind: Literal["images", "views"]
    read: Callable[[Path, str], Tensor]
    encode: Callable[[Tensor, Sequence[str]], Tensor]
    batch_size: int
    label: str = ""
    key: Mapping[str, str]


@dataclass(kw_only=True)
class FeatureStore:
    """Computes features with `encoder` and, if it `writes`, banks them under `folder`.

    Features are raw (not normalized), on the encoder's device, and encoded in fp32 whatever the precision of training,
    at most `encode_batch` at a time and fewer once memory has run out. `stamps_of` returns the stamps of image files by
    name, without those that cannot be accessed; features with another stamp are not used.
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
        self._device = self.encoder.compute.device
        self.batch_size = self._batch_limit = choose_encode_batch(self.encode_batch, self._device, self.encoder.size)
        if older := older_banks(self.folder):
            what = "feature banks of an older version of mlcl, which are not used and are safe to delete"
            logger.info(f"{self.folder} has {what}: {some(older)}")

    def images(self, files: Files) -> EncodedImages:
        """Features of images, each distinct one encoded once: names with equal stamps have equal features."""
        recipe = _Recipe(
            kind="images",
            read=lambda path, _name: self.transform(open_image(path)),
            encode=lambda pixels, _names: self.encode_pixels(pixels),
            batch_size=self.batch_size,
            key={"transform": repr(self.transform)},
        )
        return self._banked(files, recipe)

    @torch.no_grad()
    def encode_images_now(self, cache: ImageCache, names: Sequence[str]) -> FeatureTable:
        """Features of images by the encoder as it is now; nothing is banked."""
        parts = []
        with self.progress.bar(f"Encoding {counted(len(names), 'image')}", len(names)) as advance:
            for start in range(0, len(names), self.batch_size):
                batch = names[start : start + self.batch_size]
                parts.append(self.encode_pixels(cache.read(batch)))
                advance(len(batch))
        return self._table(names, parts)

    @torch.no_grad()
    def encode_files(
        self, files: Files, read: Callable[[Path, str], tuple[Tensor, Note]]
    ) -> Iterator[EncodedBatch[Note]]:
        """Encode images batch by batch; nothing is banked.

        `read` returns an image as `transform` does, and a note of it, for a path and a name; threads call it ahead.
        """
        starts = range(0, len(files), self.batch_size)
        batches = [files[start : start + self.batch_size] for start in starts]
        results = self._read(batches, read, self.batch_size)
        for batch in batches:
            found = list(islice(results, len(batch)))
            read_ones = [result for result in found if not isinstance(result, BadImage)]
            features = torch.empty(0, self.encoder.feature_dim)
            if read_ones:
                features = self.encode_pixels(torch.stack([pixels for pixels, _ in read_ones])).cpu()
            bad = [result for result in found if isinstance(result, BadImage)]
            yield EncodedBatch(features, [note for _, note in read_ones], bad)

    def views(self, files: Files, count: int, seed: int) -> Tensor:
        """`count` augmented views of each image, decoded once for all: (count, len(files), d).

        Raises BadImagesError if one cannot be read.
        """
        opener, augment = PaddedImageCache(self.transform), Augmentation()
        views = []
        for view in range(count):

            def crop(path: Path, name: str, view: int = view) -> Tensor:
                return random_crop(opener(path), self.transform.size, derive_seed(seed, "view", view, name))

            def encode(crops: Tensor, names: Sequence[str], view: int = view) -> Tensor:
                pixels = augment(crops.to(self._device), derive_seed(seed, "augment", view, names[0]))
                return self._encode(self.encoder.encode_images, pixels)

            recipe = _Recipe(
                kind="views",
                read=crop,
                encode=encode,
                batch_size=VIEWS_PER_BATCH,
                label=f"augmented views, set {view + 1} of {count}: ",
                key={"view": str(view), "seed": str(seed), "transform": repr(opener.transform), "recipe": RECIPE},
            )
            encoded = self._banked(files, recipe)
            if encoded.bad:
                raise BadImagesError(list(encoded.bad.values()), "Fix each image, and run the command again")
            views.append(encoded.table.of([name for name, _ in files]))
        return torch.stack(views)

    def texts(self, captions: Sequence[str], *, banked: bool = True) -> FeatureTable:
        """Features of the distinct `captions`, each encoded once among captions of about its length."""
        distinct = list(dict.fromkeys(captions))
        if not banked:
            return self._table(distinct, [self.encode_tokens(self.tokens(distinct))] if distinct else [])
        stamps = dict.fromkeys(distinct, "")
        with self._bank("texts", self.fingerprints.text, {}) as bank:
            if missing := bank.missing(stamps):
                features = self.encode_tokens(self.tokens(missing))
                with defer_signals():
                    bank.add(dict.fromkeys(missing, ""), features)
            return bank.table(stamps, self._device)

    def tokens(self, captions: Sequence[str]) -> Tokens:
        """Tokens of `captions`; warns how many were truncated."""
        limit = self.encoder.context_length
        tokens = tokenize(captions, limit, self._device)
        if tokens.truncated:
            logger.warning(f"{counted(tokens.truncated, 'caption')} longer than {limit} tokens: truncated")
        return tokens

    @torch.no_grad()
    def encode_tokens(self, tokens: Tokens) -> Tensor:
        """Features (N, d); each text is encoded among texts of about its length."""
        count = len(tokens.lengths)
        features = torch.empty(count, self.encoder.feature_dim, device=self._device)
        with self.progress.bar(f"Encoding {counted(count, 'caption')}", count) as advance:
            for rows in tokens.lengths.argsort(stable=True).split(self.batch_size):
                features[rows.to(self._device)] = self._encode(self.encoder.encode_texts, tokens.batch(rows))
                advance(len(rows))
        return features

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> Tensor:
        """Raw features (N, d) of images as `transform` gives them, (N, 3, S, S), N > 0; nothing is banked."""
        encode = self.encoder.encode_images
        return self._encode(lambda part: encode(preprocess_pixels(part.to(self._device))), pixels)

    def _encode(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """Features (N, d) of inputs (N, ...), N > 0. Raises MachineError if a single input does not fit into memory."""
        features: list[Tensor] = []
        done = 0
        while done < len(inputs):
            batch = inputs[done : done + self._batch_limit]
            try:
                features.append(function(batch))
                done += len(batch)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside of the handler, so that the tensors that the traceback holds are free.
            if len(batch) == 1:
                what, remedy = "out of memory while encoding a single image or caption", "choose a smaller clip.model"
                raise MachineError(what, remedy=f"Free memory on the device, or {remedy}")
            self._batch_limit = len(batch) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logger.warning(
                f"Out of memory while encoding {len(batch):,} at once: trying {self._batch_limit:,}. "
                f"Set clip.encode_batch: {self._batch_limit} to start with that"
            )
        return features[0] if len(features) == 1 else torch.cat(features)

    def _banked(self, files: Files, recipe: _Recipe) -> EncodedImages:
        stamps = self.stamps_of(dict(files))
        with self._bank(recipe.kind, self.fingerprints.image, {"dataset": self.dataset, **recipe.key}) as bank:
            copies = bank.copies(stamps) if recipe.kind == "images" else {}
            missing = set(bank.missing(stamps)) - copies.keys()
            # Batches are those of all files, so that a build that was interrupted ends in the same features.
            starts = range(0, len(files), recipe.batch_size)
            batches = (files[start : start + recipe.batch_size] for start in starts)
            needed = ([file for file in batch if file[0] in missing or file[0] not in stamps] for batch in batches)
            bad = self._fill(bank, stamps, [batch for batch in needed if batch], recipe)
            with defer_signals():
                bank.copy(stamps, {name: source for name, source in copies.items() if source not in bad})
            same = {name: bad[source] for name, source in copies.items() if source in bad}
            bad |= {name: replace(image, name=name, path=dict(files)[name]) for name, image in same.items()}
            readable = {name: stamps[name] for name, _ in files if name not in bad}
            return EncodedImages(bank.table(readable, self._device), bad)

    @contextmanager
    def _bank(self, kind: str, fingerprint: str, details: Mapping[str, str]) -> Iterator[Bank]:
        """The bank for this key. One process fills it at a time; the next one waits, and finds it full."""
        key = {"kind": kind, "encoder": fingerprint, "precision": "fp32", **details}
        path = Bank.path_of(self.folder, key)
        lock = path.with_name(f"{path.name}.lock")

        def wait() -> None:
            logger.info(f"Another process is filling {path}: waiting for it")

        with exclusive_lock(lock, wait) if self.writes else nullcontext():
            yield Bank(self.folder, key, writes=self.writes)

    @torch.no_grad()
    def _fill(
        self, bank: Bank, stamps: Mapping[str, str], batches: Sequence[Files], recipe: _Recipe
    ) -> dict[str, BadImage]:
        """Encode `batches`, save every minute and at the end, even on an error, and return the bad images by name."""
        if not batches:
            return {}
        count = sum(map(len, batches))
        results = self._read(batches, recipe.read, recipe.batch_size)
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
                    read = dict(zip((name for name, _ in batch), results, strict=False))
                    bad |= {name: result for name, result in read.items() if isinstance(result, BadImage)}
                    pixels = {name: result for name, result in read.items() if isinstance(result, Tensor)}
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

    def _read(
        self, batches: Sequence[Files], read: Callable[[Path, str], Result], batch_size: int
    ) -> Iterator[Result | BadImage]:
        """Read ahead while a GPU encodes; on a CPU, reading and encoding would only compete for its cores."""
        cpu = self._device.type == "cpu"
        for files in batches if cpu else [[file for batch in batches for file in batch]]:

            def read_one(path: Path, position: int, files: Files = files) -> Result:
                return read(path, files[position][0])

            results = read_files(files, read_one, self.workers, ahead=2 * batch_size)
            yield from list(results) if cpu else results

    def _table(self, names: Sequence[str], parts: Sequence[Tensor]) -> FeatureTable:
        values = torch.cat([part.to(self._device) for part in (*parts, torch.empty(0, self.encoder.feature_dim))])
        return FeatureTable({name: row for row, name in enumerate(names)}, values)
