"""Rows of training: epochs of both stages, and gradient caching."""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy

import torch
from torch import Tensor, nn

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Row, difference
from mlcl_cli.bench.rows_random import step_floor, total
from mlcl_cli.bench.synthetic_data import SyntheticData
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.compute import Compute
from mlcl_cli.models.encoder import IMAGE_TOWER, TOWERS, Encoder, Tower
from mlcl_cli.models.losses import combiner_logits, combiner_losses, finetune_loss
from mlcl_cli.seeding import derive_seed
from mlcl_cli.training.feature_sources import CachedFeatures, ImageEncoderSource, TextEncoderSource, encode_chunks
from mlcl_cli.training.loop import Trainer, TrainingPlan
from mlcl_cli.training.objectives import (
    BankedViews,
    CombinerObjective,
    FinetuneObjective,
    FreshViews,
    Views,
    combiner_optimizer,
    finetune_optimizer,
)
from mlcl_cli.training.triplet_rows import TripletRows

CACHING_FACTOR = 16
BANKED_EPOCHS = 10  # in a run: one takes milliseconds
COMBINER_RATE, FINETUNE_RATE = 2e-5, 2e-6  # METHOD.md, Sections 4.4 and 3.2


def combiner_epochs(data: SyntheticData) -> Iterator[Row]:
    """An epoch of stage 2 with banked views, then with fresh ones, each against the same baseline epoch."""
    triplets, batch_size, store = data.triplets, data.sizes.combiner_batch_size, data.store()
    images = CachedFeatures(store.images(data.files).table.of(triplets.images))
    texts = CachedFeatures(store.texts(triplets.captions).of(triplets.captions))
    torch.manual_seed(0)
    combiner = Combiner(data.architecture).to(data.machine.compute.device)
    banked = BankedViews(store.views(data.files, 2, 0), triplets.references, 0)
    opener = PaddedImageCache(data.transform)
    fresh = FreshViews(data.encoder, opener, data.files, triplets.references, data.workers, 0, Augmentation())

    def objective(views: Views) -> CombinerObjective:
        return CombinerObjective(deepcopy(combiner), triplets, images, texts, views, ("mid", "high"))

    def epochs(views: Views, count: int = 1) -> Callable[[], None]:
        trained = objective(views)
        optimizer = combiner_optimizer(trained.combiner, COMBINER_RATE)
        return _epochs(data, trained, optimizer, batch_size, count)

    original = OriginalCombinerTraining(data, deepcopy(combiner))
    banked_time, fresh_time, baseline_time = data.machine.alternate(
        epochs(banked, BANKED_EPOCHS), epochs(fresh), original.training.run_epoch
    )
    steps = len(triplets) // batch_size
    count = steps * batch_size
    counts = (BANKED_EPOCHS * count, count)
    problem = original.disagreement(objective(banked))
    floor_s = step_floor(objective(banked), batch_size, data.machine) * steps * BANKED_EPOCHS
    floor = "the operations of the steps at the rate of a bare product, and Adam at the bandwidth of a copy"
    yield Row("combiner epoch, banked", "triplet", counts, banked_time, baseline_time, problem, floor_s, floor)
    problem = problem or _views_differ(fresh, original.training.dataset)
    yield Row("combiner epoch, fresh", "triplet", (count, count), fresh_time, baseline_time, problem)


class OriginalCombinerTraining:
    """Stage 2 as the original trains it: three images and a text through CLIP for each triplet in every step."""

    def __init__(self, data: SyntheticData, combiner: Combiner) -> None:
        self._clip, self._compute, self._combiner = baseline.copy_clip(data.encoder), data.machine.compute, combiner
        dataset = baseline.Triplets(data.files, data.transform, data.triplets)
        optimizer = torch.optim.Adam(combiner.train().parameters(), lr=COMBINER_RATE)
        self.training = baseline.Training(dataset, data.sizes.combiner_batch_size, optimizer, self._loss)

    def _features(self, batch: baseline.TripletImages) -> list[Tensor]:
        images = (batch.reference, batch.augmented, batch.target)
        features = [baseline.encode(self._clip.encode_image, pixels, self._compute) for pixels in images]
        return [baseline.encode(self._clip.encode_text, batch.texts, self._compute), *features]

    def _loss(self, batch: baseline.TripletImages) -> Tensor:
        with torch.no_grad():
            features = self._features(batch)
        with self._compute.autocast():
            return baseline.combiner_loss(self._combiner, *features)

    @torch.no_grad()
    def disagreement(self, ours: CombinerObjective) -> str | None:
        """How the features of a few triplets differ, or the losses that follow from them; None if they agree."""
        batch = next(baseline.batches(self.training.dataset, 32))
        text, image, _, goal = self._features(batch)
        prepared = ours.prepare(*_first(ours, batch), 1)
        features = (prepared.captions(), *prepared.images().chunk(2))
        for our, their in zip(features, (text, image, goal), strict=True):
            if problem := difference(our, their, _tolerance(self._compute), "features"):
                return problem
        combiner = deepcopy(ours.combiner).eval()
        output = combiner(text, torch.stack([image, goal]))
        loss = total(combiner_losses(combiner, combiner_logits(combiner, output, goal)))
        return difference(loss, baseline.combiner_loss(combiner, text, image, goal, goal), 1e-4, "losses")


def finetuning_epochs(data: SyntheticData) -> Iterator[Row]:
    """An epoch of stage 1 for each encoder. The baseline also augments the view that nobody needs."""
    part = slice(0, data.sizes.finetune_triplets)
    rows, store = data.triplets, data.store()
    triplets = TripletRows(rows.images, rows.captions, rows.references[part], rows.targets[part], rows.variants[part])

    encoder = Encoder(deepcopy(data.encoder.clip), data.machine.compute)
    images = CachedFeatures(store.images(data.files).table.of(triplets.images))
    texts = TextEncoderSource(encoder, store.tokens(triplets.captions))
    yield _finetuning(data, "text", FinetuneObjective(encoder, triplets, images, texts))

    encoder = Encoder(deepcopy(data.encoder.clip), data.machine.compute)
    pixels = ImageEncoderSource(encoder, ImageCache(data.files, data.transform, data.workers), triplets.images)
    features = CachedFeatures(store.texts(triplets.captions).of(triplets.captions))
    yield _finetuning(data, "image", FinetuneObjective(encoder, triplets, pixels, features))


def _finetuning(data: SyntheticData, tower: Tower, objective: FinetuneObjective) -> Row:
    compute, batch_size = data.machine.compute, data.sizes.finetune_batch_size
    optimizer = finetune_optimizer(objective.encoder, TOWERS[tower], FINETUNE_RATE)
    network, clip = objective.encoder.clip, baseline.copy_clip(objective.encoder)  # the same parameters are trainable
    trained = [parameter for parameter in clip.parameters() if parameter.requires_grad]

    def baseline_loss(batch: baseline.TripletImages) -> Tensor:  # METHOD.md, Equation 3
        reference, target = (
            baseline.encode(clip.encode_image, pixels, compute) for pixels in (batch.reference, batch.target)
        )
        return finetune_loss(reference, baseline.encode(clip.encode_text, batch.texts, compute), target)

    dataset = baseline.Triplets(data.files, data.transform, objective.triplets)
    batch = next(baseline.batches(dataset, 8))
    with compute.autocast():
        loss = total(objective.losses(objective.prepare(*_first(objective, batch), 1)))
    loss.backward()
    baseline_loss(batch).backward()
    problem = _gradients_differ(_gradients(network.parameters()), _gradients(trained), max(1e-3, _tolerance(compute)))
    network.zero_grad(set_to_none=True)
    optimizer_of_baseline = torch.optim.AdamW(trained, lr=FINETUNE_RATE, eps=1e-7)  # METHOD.md, Section 3.2
    training = baseline.Training(dataset, batch_size, optimizer_of_baseline, baseline_loss)
    count = len(dataset) // batch_size * batch_size
    ours, theirs = data.machine.alternate(_epochs(data, objective, optimizer, batch_size), training.run_epoch)
    return Row(f"{tower} fine-tuning epoch", "triplet", (count, count), ours, theirs, problem)


def gradient_caching(data: SyntheticData) -> Iterator[Row]:
    """A step on 16 times the batch in parts of the batch, against a step on the batch; the image encoder is trained."""
    compute, batch_size = data.machine.compute, data.sizes.finetune_batch_size
    encoder = Encoder(deepcopy(data.encoder.clip), compute)
    finetune_optimizer(encoder, IMAGE_TOWER, FINETUNE_RATE)
    shape = (CACHING_FACTOR * batch_size, 3, encoder.size, encoder.size)
    references, targets = (torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2))
    texts = torch.randn(len(references), encoder.feature_dim, device=compute.device)

    def encode(pixels: Tensor) -> Tensor:
        return encoder.encode_images(preprocess_pixels(pixels.to(compute.device)))

    def gradients(rows: Tensor, part_size: int | None = None) -> Tensor:
        """The image encoder's gradients, flat, of triplets `rows`: cached in parts of `part_size`, or at once."""
        encoder.clip.zero_grad(set_to_none=True)
        parts = [part for side in (references, targets) for part in side[rows].split(part_size or len(rows))]
        with compute.training():
            with compute.autocast():
                reference, target = encode_chunks(encode, parts, cached=part_size is not None).chunk(2)
                loss = finetune_loss(reference, texts[rows.to(compute.device)], target)
            loss.backward()
        return _gradients(encoder.clip.parameters())

    def check(_ours: Tensor, _theirs: Tensor) -> str | None:
        rows = torch.arange(2 * batch_size)
        exact = gradients(rows)
        # The order of a batch changes the rounding of fp32: parts may change no more than that.
        rounding = _relative_error(gradients(rows.flip(0)), exact)
        return _gradients_differ(gradients(rows, max(1, batch_size // 4)), exact, max(1e-5, 3 * rounding))

    all_rows = torch.arange(len(texts))
    yield data.machine.compare(
        f"gradient caching, {CACHING_FACTOR} times",
        "triplet",
        (len(texts), batch_size),
        lambda: gradients(all_rows, batch_size),
        lambda: gradients(all_rows[:batch_size]),
        check,
    )


def _epochs(
    data: SyntheticData,
    objective: CombinerObjective | FinetuneObjective,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    count: int = 1,
) -> Callable[[], None]:
    trainer = Trainer(objective, optimizer, TrainingPlan(1, batch_size, 1, 0), data.machine.compute)

    def run() -> None:
        for _ in range(count):
            trainer.run_epoch()
            trainer.next_epoch()

    return run


def _first(objective: CombinerObjective | FinetuneObjective, batch: baseline.TripletImages) -> tuple[Tensor, Tensor]:
    """The first triplets, and the captions of the baseline's batch, as row numbers."""
    captions = torch.tensor([objective.triplets.captions.index(text) for text in batch.texts])
    return torch.arange(len(captions)), captions


def _views_differ(fresh: FreshViews, dataset: baseline.Triplets) -> str | None:
    """Both sides draw their own views: compare the statistics of their pixels."""
    count = min(128, len(dataset))
    ours = fresh.augment(fresh.crops(torch.arange(count), 1), derive_seed(0, "augment", 1, 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # else the baseline's few draws differ from ours by chance now and then
        theirs = next(baseline.batches(dataset, count)).augmented
    for name, our, their in (("means", ours.mean(), theirs.mean()), ("deviations", ours.std(), theirs.std())):
        if abs(float(our - their)) > 0.25:
            return f"{name} of augmented pixels are {float(our):.2f} and {float(their):.2f}"
    return None


def _gradients(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def _gradients_differ(ours: Tensor, theirs: Tensor, limit: float) -> str | None:
    error = _relative_error(ours, theirs)
    return None if error <= limit else f"gradients differ by {error:.1e}"


def _tolerance(compute: Compute) -> float:
    """How close features must be: the rounding of fp32, or of mixed precision."""
    return 1e-4 if compute.dtype is None else 5e-2
