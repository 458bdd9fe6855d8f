"""TensorBoard scalars equal the logs, also those of a resumed run."""

import json
from pathlib import Path

import pytest
from world import world

from mlcl_cli.config import Profile, load_profile
from mlcl_cli.progress import NoProgress
from mlcl_cli.runs import scalars as scalars_module
from mlcl_cli.signals import Interrupted
from mlcl_cli.training.loop import Trainer
from mlcl_cli.workflows.resume import Resume
from mlcl_cli.workflows.stages import COMBINER
from mlcl_cli.workflows.train import train

pytest.importorskip("tensorboard")


def profile_of(folder: Path, *overrides: str) -> Profile:
    world(folder, "cirr")
    return load_profile(folder / "mlcl.yaml", ["combiner.epochs=4", "combiner.augmented_views=1", *overrides])


def scalars(run: Path) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def require_scalars_of_the_logs(run: Path) -> None:
    shown = scalars(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        epoch = row.pop("epoch")
        for name, value in row.items():
            kind = "val" if name.startswith(("recall", "mean(")) or name.endswith("_mean") else "train"
            assert shown[f"{kind}/{name}"][epoch] == pytest.approx(value, rel=1e-5, abs=1e-9), name
    assert len(shown) == len(rows[0]) + 1
    assert list(shown["time/epoch_seconds"]) == [1, 2, 3, 4]


def test_scalars_equal_the_logs(tmp_path: Path) -> None:
    require_scalars_of_the_logs(train(profile_of(tmp_path), NoProgress(), COMBINER).run)


def test_resumed_run_has_each_epoch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = profile_of(tmp_path, "checkpoints.every_epochs=2")
    real = Trainer.run_epoch

    def cut(trainer: Trainer, *after: object) -> dict[str, float]:
        if trainer.epoch == 4:
            raise SystemExit  # as if the machine had lost power: nothing is saved after epoch 2
        return real(trainer, *after)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "run_epoch", cut)
    with pytest.raises((SystemExit, Interrupted)):
        train(profile, NoProgress(), COMBINER)
    monkeypatch.setattr(Trainer, "run_epoch", real)
    require_scalars_of_the_logs(train(profile, NoProgress(), COMBINER, resume=Resume.NEWEST).run)


@pytest.mark.parametrize("how", ["not installed", "turned off"])
def test_runs_without_tensorboard_write_their_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "not installed":
        monkeypatch.setattr(scalars_module.importlib.util, "find_spec", lambda _: None)
    profile = profile_of(tmp_path, *(["tensorboard=none"] if how == "turned off" else []))
    run = train(profile, NoProgress(), COMBINER).run
    assert not list(run.glob("events.*"))
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 4
