"""Rows of training: epochs of both stages, and gradient caching."""

import random
from collections.abc import Callable, Iterator
from copy import deepcopy

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Machine, Row
from mlcl_cli.bench.rows_data import baseline_encoder, closeness, difference
from mlcl_cli.bench.synthetic_data import SyntheticData
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.encoder import Encoder, Tower
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

ADAM_BYTES = 28  # read and written for each parameter
CACHED_TIMES = 16
BANKED_TIMES = 10  # epochs a run: one takes milliseconds


def combiner_epochs(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """An epoch of stage 2: banked views, then fresh ones, beside the same plain epoch."""
    machine, rows, batch = material.machine, material.triplets, material.sizes.combiner_batch
    store, device = material.store(), machine.compute.device
    images, texts = store.images(material.files).table, store.texts(rows.captions)
    torch.manual_seed(0)
    combiner = Combiner(material.architecture).to(device)
    banked = BankedViews(store.views(material.files, 2, 0), rows.references, 0)
    opener = PaddedImageCache(material.transform)
    fresh = FreshViews(material.encoder, opener, material.files, rows.references, material.workers, 0, Augmentation())
    pictures, captions = CachedFeatures(images.of(rows.images)), CachedFeatures(texts.of(rows.captions))

    def combining(views: Views) -> CombinerObjective:
        return CombinerObjective(deepcopy(combiner), rows, pictures, captions, views, ("mid", "high"))

    other = PlainCombining(material, deepcopy(combiner))
    ours = [_epochs(combining(banked), machine, batch, times=BANKED_TIMES), _epochs(combining(fresh), machine, batch)]
    timings = machine.alternate([*ours, other.epoch], repeats)
    problem = other.disagreement(combining(banked))
    count = len(rows) // batch * batch
    many = count * BANKED_TIMES
    floor = step_floor(combining(banked), batch, machine) * (many // batch)
    of = "operations of the steps at the rate of a bare product, and Adam at the bandwidth of a copy"
    yield Row("combiner epoch, banked", "triplet", (many, count), timings[0], timings[2], problem, floor, of)
    problem = problem or _views_differ(material, other.dataset)
    yield Row("combiner epoch, fresh", "triplet", (count, count), timings[1], timings[2], problem)


class PlainCombining:
    """The original epoch of stage 2: three pictures and a text through CLIP in every step."""

    def __init__(self, material: SyntheticData, combiner: Combiner) -> None:
        self.machine, self.batch = material.machine, material.sizes.combiner_batch
        self.encoder, self.combiner = baseline_encoder(material, training=True), combiner.train()
        self.dataset = baseline.Triplets(material.files, material.transform, material.triplets)
        self.optimizer = torch.optim.Adam(combiner.parameters(), lr=2e-5)  # METHOD.md, Section 4.4

    def epoch(self) -> None:
        """Trains on every batch, and reads every loss."""
        compute = self.machine.compute
        for reference, augmented, target, texts in baseline.batches(self.dataset, self.batch, training=True):
            with torch.no_grad():
                images = [self.encoder.encode_images(pixels) for pixels in (reference, augmented, target)]
                text = self.encoder.encode_texts(texts)
            with compute.autocast():
                loss = baseline.combiner_loss(self.combiner, text, *images)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()

    @torch.no_grad()
    def disagreement(self, ours: CombinerObjective) -> str | None:
        """Whether features of a few triplets, and the loss that follows from them, are the same on both sides."""
        rows = torch.arange(min(32, len(ours.triplets)))
        reference = torch.stack([self.dataset[row][0] for row in rows.tolist()])
        target = torch.stack([self.dataset[row][2] for row in rows.tolist()])
        drawn = ours.triplets.variants[rows, 0]
        text = self.encoder.encode_texts([ours.triplets.captions[row] for row in drawn.tolist()])
        image, goal = self.encoder.encode_images(reference), self.encoder.encode_images(target)
        batch = ours.prepare(rows, drawn, 1)
        own = [batch.references(), batch.targets(), batch.captions()]
        for mine, theirs in zip(own, (image, goal, text), strict=True):
            if problem := difference(mine, theirs, closeness(self.machine), "features"):
                return problem
        combiner = deepcopy(ours.combiner).eval()
        levels = combiner(text, torch.stack([image, goal]))
        losses = combiner_losses(combiner, combiner_logits(combiner, levels, goal))
        mine = torch.stack([loss.squeeze() for loss in losses.values()]).sum()
        return difference(mine, baseline.combiner_loss(combiner, text, image, goal, goal), 1e-4, "losses")


def finetuning_epochs(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """An epoch of stage 1 for either encoder."""
    machine, sizes = material.machine, material.sizes
    rows = first(material.triplets, sizes.finetune_triplets)
    for side in ("text", "image"):
        mine = Encoder(deepcopy(material.encoder.clip), machine.compute)
        other = baseline_encoder(material, training=True)
        objective = _finetuning(material, mine, rows, side)
        optimizer = finetune_optimizer(mine, (side,), 2e-6)
        theirs = BaselineFinetuning(material, other, rows, side)
        problem = _gradients_differ(objective, theirs, mine, side, max(1e-3, closeness(machine)))
        ours = _epochs(objective, machine, sizes.finetune_batch, optimizer)
        timings = machine.beside(ours, theirs.epoch, repeats)
        count = len(rows) // sizes.finetune_batch * sizes.finetune_batch
        yield Row(f"{side} fine-tuning epoch", "triplet", (count, count), *timings, disagreement=problem)


class BaselineFinetuning:
    """The original epoch of stage 1: what is frozen is encoded again, and the view that nobody needs is augmented."""

    def __init__(
        self, material: SyntheticData, encoder: baseline.BaselineEncoder, rows: TripletRows, side: Tower
    ) -> None:
        self.machine, self.batch, self.encoder = material.machine, material.sizes.finetune_batch, encoder
        self.dataset = baseline.Triplets(material.files, material.transform, rows)
        encoder.clip.requires_grad_(False)
        parameters = dict(encoder.clip.named_parameters())
        self.trained = {name: p for name, p in parameters.items() if name.startswith("visual.") == (side == "image")}
        for parameter in self.trained.values():
            parameter.requires_grad_()
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=2e-6, eps=1e-7)  # METHOD.md, Section 3.2

    def loss(self, reference: Tensor, target: Tensor, texts: list[str]) -> Tensor:
        """METHOD.md, Equation 3."""
        image, goal = self.encoder.encode_images(reference), self.encoder.encode_images(target)
        return finetune_loss(image, self.encoder.encode_texts(texts), goal)

    def epoch(self) -> None:
        """Trains on every batch, and reads every loss."""
        for reference, _, target, texts in baseline.batches(self.dataset, self.batch, training=True):
            loss = self.loss(reference, target, texts)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss.item()


def gradient_caching(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """A step on 16 times the batch in chunks of the batch, beside a step on the batch; the image encoder trains."""
    machine, batch = material.machine, material.sizes.finetune_batch
    encoder = Encoder(deepcopy(material.encoder.clip), machine.compute)
    finetune_optimizer(encoder, ("image",), 2e-6)
    shape = (CACHED_TIMES * batch, 3, encoder.size, encoder.size)
    references, targets = (torch.randint(0, 256, shape, dtype=torch.uint8) for _ in range(2))
    texts = torch.randn(len(references), encoder.feature_dim, device=machine.compute.device)

    def encode(part: Tensor) -> Tensor:
        return encoder.encode_images(preprocess_pixels(part.to(machine.compute.device)))

    def gradients(rows: slice, chunk: int | None, turn: Callable[[Tensor], Tensor] = lambda it: it) -> Tensor:
        """The image encoder's, flat, of triplets `rows` in chunks of `chunk`; `turn` reorders the batch."""
        encoder.clip.zero_grad(set_to_none=True)
        sides = [turn(side[rows]) for side in (references, targets)]
        chunks = [part for side in sides for part in side.split(chunk or len(side))]
        with machine.compute.training():
            with machine.compute.autocast():
                reference, target = encode_chunks(encode, chunks, cached=chunk is not None).chunk(2)
                loss = finetune_loss(reference, turn(texts[rows]), target)
            loss.backward()
        return torch.cat([p.grad.flatten() for p in encoder.parameters("image") if p.grad is not None])

    few = slice(0, 2 * batch)
    one, cached = gradients(few, None), gradients(few, max(1, batch // 4))
    turned = gradients(few, None, lambda it: it.flip(0))
    # What the order of a batch changes is the rounding of fp32, and no more than that may chunks change.
    worst, rounding = (float((other - one).norm() / one.norm()) for other in (cached, turned))
    problem = None if worst <= max(1e-5, 3 * rounding) else f"gradients differ by {worst:.1e}"
    timings = machine.beside(lambda: gradients(slice(None), batch), lambda: gradients(slice(0, batch), None), repeats)
    name = f"gradient caching, {CACHED_TIMES} times"
    yield Row(name, "triplet", (len(texts), batch), *timings, disagreement=problem)


def first(rows: TripletRows, count: int) -> TripletRows:
    """The first `count` triplets, all images and captions kept."""
    part = slice(0, count)
    return TripletRows(rows.images, rows.captions, rows.references[part], rows.targets[part], rows.variants[part])


def step_floor(objective: CombinerObjective, batch: int, machine: Machine) -> float:
    """Least seconds of a step: its operations at the rate of a bare product, Adam at the bandwidth of a copy."""
    rows = torch.arange(batch)
    with FlopCounterMode(display=False) as counter:
        losses = objective.losses(objective.prepare(rows, objective.triplets.variants[rows, 0], 1))
        torch.stack([loss.squeeze() for loss in losses.values()]).sum().backward()
    parameters = sum(parameter.numel() for parameter in objective.combiner.parameters())
    operations = float(counter.get_total_flops())
    return operations / machine.product_rate + ADAM_BYTES * parameters / machine.bandwidth


def _epochs(
    objective: FinetuneObjective | CombinerObjective,
    machine: Machine,
    batch: int,
    optimizer: torch.optim.Optimizer | None = None,
    times: int = 1,
) -> Callable[[], None]:
    if optimizer is None:
        assert isinstance(objective, CombinerObjective)
        optimizer = combiner_optimizer(objective.combiner, 2e-5)
    trainer = Trainer(objective, optimizer, TrainingPlan(1, batch, 1, 0), machine.compute)

    def run() -> None:
        for _ in range(times):
            trainer.run_epoch()
            trainer.next_epoch()

    return run


def _finetuning(material: SyntheticData, encoder: Encoder, rows: TripletRows, side: Tower) -> FinetuneObjective:
    store = material.store()
    if side == "text":
        images = CachedFeatures(store.images(material.files).table.of(rows.images))
        return FinetuneObjective(encoder, rows, images, TextEncoderSource(encoder, store.tokens(rows.captions)))
    pictures = ImageCache(material.files, material.transform, material.workers)
    texts = CachedFeatures(store.texts(rows.captions).of(rows.captions))
    return FinetuneObjective(encoder, rows, ImageEncoderSource(encoder, pictures, rows.images), texts)


def _gradients_differ(
    ours: FinetuneObjective, other: BaselineFinetuning, encoder: Encoder, side: Tower, limit: float
) -> str | None:
    rows = torch.arange(min(8, len(ours.triplets)))
    drawn = ours.triplets.variants[rows, 0]
    with ours.encoder.compute.autocast():
        (loss,) = ours.losses(ours.prepare(rows, drawn, 1)).values()
    loss.backward()
    pictures = [other.dataset[row] for row in rows.tolist()]
    reference, target = torch.stack([it[0] for it in pictures]), torch.stack([it[2] for it in pictures])
    other.loss(reference, target, [ours.triplets.captions[row] for row in drawn.tolist()]).backward()
    mine = torch.cat([p.grad.flatten() for p in encoder.parameters(side) if p.grad is not None])
    theirs = torch.cat([p.grad.flatten() for p in other.trained.values() if p.grad is not None])
    encoder.clip.zero_grad(set_to_none=True)
    worst = float((mine - theirs).norm() / theirs.norm())
    return None if worst <= limit else f"gradients differ by {worst:.1e}"


def _views_differ(material: SyntheticData, dataset: baseline.Triplets) -> str | None:
    """Both sides draw their own views: their pixels must be alike on the whole."""
    count = min(128, len(dataset))
    fresh = FreshViews(
        material.encoder,
        PaddedImageCache(material.transform),
        material.files,
        material.triplets.references,
        material.workers,
        0,
        Augmentation(),
    )
    ours = fresh.augment(fresh.crops(torch.arange(count), 1), derive_seed(0, "augment", 1, 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # else the plain side's few draws differ from ours by chance now and then
        random.seed(0)
        theirs = torch.stack([dataset[row][1] for row in range(count)])
    for what, mine, other in (("means", ours.mean(), theirs.mean()), ("deviations", ours.std(), theirs.std())):
        if abs(float(mine - other)) > 0.25:
            return f"{what} of augmented pixels are {float(mine):.2f} and {float(other):.2f}"
    return None


ROWS: tuple[Callable[[SyntheticData, int], Iterator[Row]], ...] = (combiner_epochs, finetuning_epochs, gradient_caching)
