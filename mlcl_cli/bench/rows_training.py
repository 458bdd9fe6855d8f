"""Rows of training: epochs of both stages, gradient caching, all of stage 2, and steps on shared processors."""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from mlcl_cli.bench import baseline
from mlcl_cli.bench.measure import Row, Timing, difference, exceeds, total
from mlcl_cli.bench.synthetic_data import RandomValidation, SyntheticData, random_objective
from mlcl_cli.data.protocols import FASHIONIQ_ORIGINAL
from mlcl_cli.images.augment import Augmentation
from mlcl_cli.images.image_cache import ImageCache, PaddedImageCache
from mlcl_cli.images.transforms import preprocess_pixels
from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.compute import Compute, choose_compute
from mlcl_cli.models.encoder import IMAGE_TOWER, TOWERS, Encoder, Tower
from mlcl_cli.models.losses import combiner_logits, combiner_losses, finetune_loss
from mlcl_cli.openmp import VARIABLES, set_wait_policy
from mlcl_cli.progress import NoProgress
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind, TrainingDescription
from mlcl_cli.runs.run import Run, RunSettings
from mlcl_cli.seeding import derive_seed
from mlcl_cli.training.feature_sources import CachedFeatures, ImageEncoderSource, TextEncoderSource, encode_chunks
from mlcl_cli.training.loop import Trainer, TrainingPlan, fit
from mlcl_cli.training.objectives import (
    BankedViews,
    CombinerObjective,
    FinetuneObjective,
    FreshViews,
    combiner_optimizer,
    finetune_optimizer,
)

CACHING_FACTOR = 16
BANKED_EPOCHS = 10  # in a run: one takes milliseconds
COMBINER_RATE, FINETUNE_RATE = 2e-5, 2e-6  # METHOD.md, Sections 4.4 and 3.2


def combiner_epochs(data: SyntheticData) -> Iterator[Row]:
    """An epoch of stage 2 with banked views, then with fresh ones, each against the same baseline epoch.

    The baseline encodes three images and a text of each triplet in every step.
    """
    compute, batch_size = data.machine.compute, data.sizes.combiner_batch_size
    triplets, store = data.triplets(data.sizes.triplets), data.store()
    image_source = CachedFeatures(store.images(data.files).table.of(triplets.images))
    text_source = CachedFeatures(store.texts(triplets.captions).of(triplets.captions))
    torch.manual_seed(0)
    combiner = Combiner(data.architecture).to(compute.device)
    banked = BankedViews(store.views(data.files, 2, 0), triplets.references, 0)
    opener = PaddedImageCache(data.transform)
    fresh = FreshViews(data.encoder, opener, data.files, triplets.references, data.workers, 0, Augmentation())
    clip, dataset = baseline.copy_clip(data.encoder), baseline.read_triplets(data.files, data.transform, triplets)
    original = deepcopy(combiner).train()

    def objective(views: BankedViews | FreshViews) -> CombinerObjective:
        return CombinerObjective(deepcopy(combiner), triplets, image_source, text_source, views, ("mid", "high"))

    def trainer(views: BankedViews | FreshViews) -> Trainer:
        trained = objective(views)
        optimizer = combiner_optimizer(trained.combiner, COMBINER_RATE)
        return Trainer(trained, optimizer, TrainingPlan(1, batch_size, 1, 0), compute)

    def encode(batch: baseline.TripletImages) -> list[Tensor]:
        return baseline.encode_batch(clip, batch.texts, (batch.reference, batch.augmented, batch.target), compute)

    def baseline_loss(batch: baseline.TripletImages) -> Tensor:
        with torch.no_grad():
            features = encode(batch)
        with compute.autocast():
            return baseline.combiner_loss(original, *features)

    adam = torch.optim.Adam(original.parameters(), lr=COMBINER_RATE)
    banked_time, fresh_time, baseline_time = data.machine.alternate(
        partial(_run_epochs, trainer(banked), BANKED_EPOCHS),
        partial(_run_epochs, trainer(fresh)),
        partial(baseline.train_epoch, dataset, batch_size, adam, baseline_loss),
    )
    steps = len(triplets) // batch_size
    count = steps * batch_size
    batch = next(baseline.batches(dataset, 32))
    with torch.no_grad():
        problem = _combiners_differ(objective(banked), batch, encode(batch), _tolerance(compute))
    floor_s = data.machine.step_floor(objective(banked), batch_size) * steps * BANKED_EPOCHS
    floor = "the operations of the steps at the rate of a bare product, and Adam at the bandwidth of a copy"
    counts = (BANKED_EPOCHS * count, count)
    yield Row("combiner epoch, banked", "triplet", counts, banked_time, baseline_time, problem, floor_s, floor)
    problem = problem or _views_differ(fresh, dataset)
    yield Row("combiner epoch, fresh", "triplet", (count, count), fresh_time, baseline_time, problem)


def _combiners_differ(
    ours: CombinerObjective, batch: baseline.TripletImages, features: Sequence[Tensor], tolerance: float
) -> str | None:
    """How our features of a batch differ from the baseline's, or the losses that follow from them."""
    text, image, _, goal = features
    prepared = ours.prepare(*_first(ours, batch), 1)
    references, targets = prepared.images().chunk(2)
    pairs = ((prepared.captions(), text), (references, image), (targets, goal))
    problems = (difference(our, their, tolerance, "features") for our, their in pairs)
    combiner = ours.combiner.eval()
    output = combiner(text, torch.stack([image, goal]))
    loss = total(combiner_losses(combiner, combiner_logits(combiner, output, goal)))
    baseline_loss = baseline.combiner_loss(combiner, text, image, goal, goal)
    return next(filter(None, problems), None) or difference(loss, baseline_loss, 1e-4, "losses")


def finetuning_epochs(data: SyntheticData) -> Iterator[Row]:
    """An epoch of stage 1 for each encoder. The baseline also augments the view that nobody needs."""
    triplets, store = data.triplets(data.sizes.finetune_triplets), data.store()
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
        images = (batch.reference, batch.target)
        text, reference, target = baseline.encode_batch(clip, batch.texts, images, compute)
        return finetune_loss(reference, text, target)

    dataset = baseline.read_triplets(data.files, data.transform, objective.triplets)
    batch = next(baseline.batches(dataset, 8))
    with compute.autocast():
        loss = total(objective.losses(objective.prepare(*_first(objective, batch), 1)))
    loss.backward()
    baseline_loss(batch).backward()
    error = _relative_error(_gradients(network.parameters()), _gradients(trained))
    problem = exceeds(error, max(1e-3, _tolerance(compute)), "gradients")
    network.zero_grad(set_to_none=True)
    adam = torch.optim.AdamW(trained, lr=FINETUNE_RATE, eps=1e-7)  # METHOD.md, Section 3.2
    trainer = Trainer(objective, optimizer, TrainingPlan(1, batch_size, 1, 0), compute)
    ours, theirs = data.machine.alternate(
        partial(_run_epochs, trainer), partial(baseline.train_epoch, dataset, batch_size, adam, baseline_loss)
    )
    count = len(dataset) // batch_size * batch_size
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
        error = _relative_error(gradients(rows, max(1, batch_size // 4)), exact)
        return exceeds(error, max(1e-5, 3 * rounding), "gradients")

    all_rows = torch.arange(len(texts))
    yield data.machine.compare(
        f"gradient caching, {CACHING_FACTOR} times",
        "triplet",
        (len(texts), batch_size),
        lambda: gradients(all_rows, batch_size),
        lambda: gradients(all_rows[:batch_size]),
        check,
    )


def full_run(data: SyntheticData) -> Iterator[Row]:
    """FashionIQ's thousand epochs, validated, logged and checkpointed; a baseline run would take most of a day."""
    sizes, device = data.sizes.full_run, data.machine.compute.device
    if sizes is None:
        return
    objective = random_objective(data.architecture, sizes.triplets, sizes.images, sizes.captions, device)
    validation = RandomValidation("fashioniq", sizes.validation, data.architecture.feature_dim, device)
    evaluate = validation.evaluation(FASHIONIQ_ORIGINAL)
    plan = TrainingPlan(sizes.epochs, sizes.batch_size, 1, 0)
    floor_s = data.machine.step_floor(objective, sizes.batch_size) * plan.steps(sizes.triplets) * plan.epochs
    description = TrainingDescription(
        dataset="fashioniq",
        protocol=FASHIONIQ_ORIGINAL.name,
        clip=ClipRecord(model="", fingerprint=""),
        image=ImageRecord(transform="", target_ratio=1.0),
        seed=plan.seed,
        device=str(data.machine.compute),
        versions={},
    )
    settings = RunSettings(Kind.COMBINER, "", plan.epochs, FASHIONIQ_ORIGINAL.bests, description)
    with Run.create(data.new_folder(), "bench", "", settings) as run:
        optimizer = combiner_optimizer(objective.combiner, COMBINER_RATE)
        trainer = Trainer(objective, optimizer, plan, data.machine.compute)
        timing = Timing.of([fit(trainer, run, lambda: evaluate(objective.combiner.eval().queries), NoProgress())])
    floor = "the operations of the steps alone, and Adam: validation, logs and checkpoints are in our time"
    yield Row(
        f"FashionIQ, {plan.epochs:,} epochs", "epoch", (plan.epochs, 1), timing, None, floor_s=floor_s, floor=floor
    )


def shared_processors(data: SyntheticData) -> Iterator[Row]:
    """Combiner steps beside busy programs with our wait policy, and with OpenMP's default. Only on a CPU.

    Each run is a new process, since the environment at its start decides how its threads wait.
    """
    if data.machine.compute.device.type != "cpu":
        return
    steps = data.sizes.shared_steps
    default = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", f"from {__name__} import train_small_combiner; train_small_combiner({steps})"]
    for programs in data.sizes.busy_programs:
        seconds: tuple[list[float], list[float]] = ([], [])
        losses: set[str] = set()
        with ExitStack() as stack:
            for _ in range(programs):
                program = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
                stack.callback(program.kill)
            for _ in range(data.machine.repeats):
                chosen = dict(default)
                set_wait_policy(chosen)
                for side, environment in zip(seconds, (chosen, default), strict=True):
                    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
                    duration, loss = output.split()
                    side.append(float(duration))
                    losses.add(loss)
        problem = None if len(losses) == 1 else f"losses are {sorted(losses)}"
        name = f"combiner steps beside {programs} busy program{'' if programs == 1 else 's'}"
        yield Row(name, "step", (steps, steps), Timing.of(seconds[0]), Timing.of(seconds[1]), problem)


def train_small_combiner(steps: int) -> None:
    """Print the seconds that `steps` steps take, and their mean loss."""
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    compute = choose_compute("cpu", "auto")
    architecture = Architecture(feature_dim=64, projection_dim=256, hidden_dim=512)
    objective = random_objective(architecture, 128 * steps, 128, 128, compute.device)
    trainer = Trainer(objective, combiner_optimizer(objective.combiner, 1e-4), TrainingPlan(2, 128, 1, 0), compute)
    trainer.run_epoch()  # warms up
    trainer.next_epoch()
    start = time.perf_counter()
    figures = trainer.run_epoch()
    sys.stdout.write(f"{time.perf_counter() - start} {figures['loss']}\n")


def _run_epochs(trainer: Trainer, count: int = 1) -> None:
    for _ in range(count):
        trainer.run_epoch()
        trainer.next_epoch()


def _first(objective: CombinerObjective | FinetuneObjective, batch: baseline.TripletImages) -> tuple[Tensor, Tensor]:
    """The first triplets, and the captions of the baseline's batch, as row numbers."""
    captions = torch.tensor([objective.triplets.captions.index(text) for text in batch.texts])
    return torch.arange(len(captions)), captions


def _views_differ(fresh: FreshViews, dataset: baseline.Items[baseline.TripletImages]) -> str | None:
    """Both sides draw their own views: compare the statistics of their pixels."""
    count = min(128, len(dataset))
    ours = fresh.augment(fresh.crops(torch.arange(count), 1), derive_seed(0, "augment", 1, 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # else the baseline's few draws sometimes differ from ours by chance
        theirs = next(baseline.batches(dataset, count)).augmented
    error = max(abs(float(ours.mean() - theirs.mean())), abs(float(ours.std() - theirs.std())))
    return exceeds(error, 0.25, "means or deviations of augmented pixels")


def _gradients(parameters: Iterable[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])


def _relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def _tolerance(compute: Compute) -> float:
    """How close features must be: the rounding of fp32, or of mixed precision."""
    return 1e-4 if compute.dtype is None else 5e-2
