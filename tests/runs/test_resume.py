"""A run that is interrupted anywhere and resumed equals an uninterrupted one, bit for bit."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from messages import Messages
from world import world

from mlcl_cli.config import Profile, load_profile
from mlcl_cli.errors import DataError, DivergedError, MachineError, UsageError
from mlcl_cli.progress import NoProgress
from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import StoredRun, list_runs
from mlcl_cli.runs.run import LAST, LOCK, PREVIOUS
from mlcl_cli.runs.summary import RunState
from mlcl_cli.signals import Interrupted, interruptible
from mlcl_cli.training import loop
from mlcl_cli.training.loop import Trainer
from mlcl_cli.workflows.resume import Resume
from mlcl_cli.workflows.stages import COMBINER, fine_tuning
from mlcl_cli.workflows.train import TrainingResult, train

SAME = ("metrics.jsonl", "metrics.csv", "best.safetensors", "last.safetensors")
RESUME = Resume.NEWEST
Start = Callable[[Profile, Resume], TrainingResult]

STAGES: dict[str, tuple[Start, list[str]]] = {
    "text": (lambda p, r: train(p, NoProgress(), fine_tuning("text"), resume=r), []),
    "image": (lambda p, r: train(p, NoProgress(), fine_tuning("image"), resume=r), ["finetune.chunk_size=3"]),
    "fresh": (lambda p, r: train(p, NoProgress(), COMBINER, resume=r), ["combiner.schedule=cosine_restarts"]),
    "banked": (lambda p, r: train(p, NoProgress(), COMBINER, resume=r), ["combiner.augmented_views=2"]),
}


def profile_of(folder: Path, *overrides: str) -> Profile:
    if not (folder / "mlcl.yaml").exists():
        world(folder, "cirr", triplets=30)
    chosen = [text.replace("workspace=", f"workspace={folder}/") for text in overrides]
    return load_profile(folder / "mlcl.yaml", ["finetune.epochs=3", "combiner.epochs=4", *chosen])


def contents(run: Path) -> dict[str, object]:
    """What must not depend on where a run was interrupted; weights by their fingerprints."""
    logs = {name: (run / name).read_bytes() for name in SAME[:2]}
    weights = {name: load_checkpoint(run / name).about.fingerprint for name in SAME[2:]}
    bests = json.loads((run / "run.json").read_text())["bests"]
    return logs | weights | {"bests": bests}


def resumable_runs(workspace: Path) -> list[StoredRun]:
    return [run for run in list_runs(workspace, Kind.COMBINER) if run.resumable]


@pytest.fixture
def cut_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Send this process SIGTERM during the n-th step from now."""
    real = Trainer._step
    left = [-1]

    def step(self: Trainer, batch: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, batch)

    monkeypatch.setattr(Trainer, "_step", step)

    def arm(steps: int) -> None:
        left[0] = steps

    return arm


@pytest.mark.parametrize("stage", STAGES)
def test_run_interrupted_twice_equals_an_uninterrupted_one(
    tmp_path: Path, stage: str, cut_at: Callable[[int], None]
) -> None:
    start, overrides = STAGES[stage]
    whole = start(profile_of(tmp_path, *overrides, "workspace=whole"), Resume.NONE)
    profile = profile_of(tmp_path, *overrides, "workspace=cut")
    for steps, again in ((2, Resume.NONE), (5, RESUME)):
        cut_at(steps)
        with pytest.raises(Interrupted, match="--resume"), interruptible():
            start(profile, again)
    resumed = start(profile, RESUME)
    assert contents(resumed.run) == contents(whole.run)
    assert resumed.best == whole.best
    with pytest.raises(UsageError, match="no unfinished run"):
        start(profile, RESUME)


def test_interrupt_during_validation_repeats_only_the_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(profile_of(tmp_path, "workspace=whole"), NoProgress(), COMBINER)
    real, calls = loop._validated, [0]

    def cut(validate: object, epoch: int) -> object:
        calls[0] += 1
        if calls[0] == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(validate, epoch)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "_validated", cut)
    profile = profile_of(tmp_path, "workspace=cut")
    with pytest.raises(Interrupted), interruptible():
        train(profile, NoProgress(), COMBINER)
    steps = []
    real_step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda self, batch: (steps.append(self.epoch), real_step(self, batch))[1])
    resumed = train(profile, NoProgress(), COMBINER, resume=RESUME)
    assert 2 not in steps
    assert contents(resumed.run) == contents(whole.run)


@pytest.fixture
def stopped(tmp_path: Path, cut_at: Callable[[int], None]) -> tuple[Profile, Path]:
    """A run that was stopped in its third epoch, with a saved state after each."""
    profile = profile_of(tmp_path, "workspace=cut", "checkpoints.every_epochs=1")
    cut_at(8)
    with pytest.raises(Interrupted), interruptible():
        train(profile, NoProgress(), COMBINER)
    (run,) = resumable_runs(tmp_path / "cut")
    return profile, run.folder


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty"])
def test_resume_skips_a_damaged_state_with_a_warning(
    stopped: tuple[Profile, Path], tmp_path: Path, damage: str
) -> None:
    profile, folder = stopped
    path, content = folder / LAST, (folder / LAST).read_bytes()
    damaged = {
        "truncated": content[:-10],
        "flipped": content[:600] + bytes([content[600] ^ 4]) + content[601:],
        "foreign": (folder / "best.safetensors").read_bytes(),
        "empty": b"",
    }
    path.write_bytes(damaged[damage])
    messages = Messages()
    resumed = train(profile, NoProgress(), COMBINER, resume=RESUME)
    assert [text for text in messages.warnings if LAST in text and "trying the state saved before it" in text]
    whole = train(profile_of(tmp_path, "workspace=whole", "checkpoints.every_epochs=1"), NoProgress(), COMBINER)
    assert contents(resumed.run) == contents(whole.run)


def test_resume_without_an_intact_state_is_an_error(stopped: tuple[Profile, Path]) -> None:
    profile, folder = stopped
    for name in (LAST, PREVIOUS):
        (folder / name).write_bytes(b"no state")
    with pytest.raises(DataError, match="no intact training state"):
        train(profile, NoProgress(), COMBINER, resume=RESUME)


def test_resume_takes_the_named_state_or_raises(stopped: tuple[Profile, Path]) -> None:
    profile, folder = stopped
    with pytest.raises(DataError, match="no unfinished run"):
        train(profile, NoProgress(), COMBINER, resume=folder / "step-7.safetensors")
    with pytest.raises(DataError, match="no unfinished run"):
        train(profile, NoProgress(), COMBINER, resume=folder.with_name("none"))
    result = train(profile, NoProgress(), COMBINER, resume=folder / PREVIOUS)
    assert result.run == folder


def test_resume_names_changed_settings_and_data(stopped: tuple[Profile, Path], tmp_path: Path) -> None:
    changed = profile_of(tmp_path, "workspace=cut", "checkpoints.every_epochs=1", "combiner.batch_size=9", "seed=3")
    with pytest.raises(UsageError, match=r"seed was 0, is 3; combiner\.batch_size was 8, is 9") as error:
        train(changed, NoProgress(), COMBINER, resume=RESUME)
    remedy = "Pass --set seed=0 --set combiner.batch_size=8, or start a new run with --no-resume"
    assert str(error.value).endswith(remedy)
    profile, _ = stopped
    captions = tmp_path / "data/cirr/captions/cap.rc2.train.json"
    captions.write_text(captions.read_text().replace("bottles", "dogs", 1))
    with pytest.raises(UsageError, match=r"data\.train was \w+, is \w+"):
        train(profile, NoProgress(), COMBINER, resume=RESUME)


def test_resume_refuses_a_run_that_another_process_trains(stopped: tuple[Profile, Path]) -> None:
    profile, folder = stopped
    with FileLock(folder / LOCK), pytest.raises(MachineError, match="another process"):
        train(profile, NoProgress(), COMBINER, resume=RESUME)


def test_automatic_resume_starts_a_run_where_there_is_none(tmp_path: Path, cut_at: Callable[[int], None]) -> None:
    automatic = Resume.NEWEST_IF_ANY
    profile = profile_of(tmp_path, "workspace=auto")
    cut_at(3)
    with pytest.raises(Interrupted), interruptible():
        train(profile, NoProgress(), COMBINER, resume=automatic)
    train(profile, NoProgress(), COMBINER, resume=automatic)
    (run,) = list_runs(tmp_path / "auto", Kind.COMBINER)
    assert run.state is RunState.FINISHED


def test_non_finite_gradient_changes_no_weight_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before: list[dict[str, torch.Tensor]] = []
    trainers: list[Trainer] = []
    real = Trainer._step

    def step(self: Trainer, batch: object) -> None:
        trainers[:] = [self]
        if (self.epoch, self.steps_done) == (2, 1):
            before.append({name: tensor.clone() for name, tensor in self.objective.weights().items()})
            handle = self._parameters[0].register_hook(lambda gradient: gradient * torch.nan)
            real(self, batch)
            handle.remove()
        else:
            real(self, batch)

    monkeypatch.setattr(Trainer, "_step", step)
    profile = profile_of(tmp_path, "checkpoints.every_epochs=1")
    with pytest.raises(DivergedError, match=r"epoch 2, step 2: the gradient is not finite"):
        train(profile, NoProgress(), COMBINER)
    after = trainers[0].objective.weights()
    assert all(torch.equal(after[name], tensor) for name, tensor in before[0].items())
    (run,) = resumable_runs(tmp_path / "work")
    assert load_checkpoint(run.folder / LAST).about.epoch == 2  # epoch 2 was about to begin


def test_resume_refuses_images_whose_content_changed_and_accepts_copies(
    stopped: tuple[Profile, Path], tmp_path: Path
) -> None:
    profile, _ = stopped
    image = tmp_path / "data/dev/val-3-img0.png"
    original, status = image.read_bytes(), image.stat()
    changed = bytearray(original)
    changed[-1] ^= 1  # the final checksum, which Pillow ignores; the size stays the same
    image.write_bytes(changed)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(UsageError, match="1 image changed or disappeared since the run began: val-3-img0"):
        train(profile, NoProgress(), COMBINER, resume=RESUME)
    data = tmp_path / "data"
    image.write_bytes(original)
    shutil.copytree(data, tmp_path / "copy")  # new inodes and times, same contents
    shutil.rmtree(data)
    (tmp_path / "copy").rename(data)
    train(profile, NoProgress(), COMBINER, resume=RESUME)


def test_resume_accepts_a_run_that_recorded_no_image_contents(stopped: tuple[Profile, Path]) -> None:
    profile, folder = stopped
    summary = json.loads((folder / "run.json").read_text())
    del summary["identity"]["images"]
    (folder / "run.json").write_text(json.dumps(summary))
    (folder / "images.json").unlink()
    assert train(profile, NoProgress(), COMBINER, resume=RESUME).run == folder
