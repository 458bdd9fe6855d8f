"""Weights & Biases and MLflow get the figures of the logs and the settings, also from a resumed run."""

import json
import struct
import time
from pathlib import Path

import pytest
from command_line import Mlcl
from world import world

from mlcl_cli.config import Profile, load_profile
from mlcl_cli.errors import MachineError
from mlcl_cli.progress import NoProgress
from mlcl_cli.runs import scalars
from mlcl_cli.signals import Interrupted
from mlcl_cli.training.loop import Trainer
from mlcl_cli.workflows.resume import Resume
from mlcl_cli.workflows.stages import COMBINER
from mlcl_cli.workflows.train import train

Curves = dict[str, dict[int, float]]


def profile_of(folder: Path, logger: str, *overrides: str) -> Profile:
    world(folder, "cirr")
    settings = ["combiner.epochs=4", "combiner.sscl=[]", f"loggers=[{logger}]", "tensorboard=none"]
    return load_profile(folder / "mlcl.yaml", [*settings, *overrides])


def logged(run: Path) -> Curves:
    """The figures in the run's own log, by the names that loggers give them."""
    curves: Curves = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        epoch = row.pop("epoch")
        for name, value in row.items():
            kind = "val" if name.startswith(("recall", "mean(")) or name.endswith("_mean") else "train"
            curves.setdefault(f"{kind}/{name}", {})[epoch] = value
    assert [*curves["train/loss"]] == [1, 2, 3, 4]
    return curves


def wandb_records(file: Path) -> list[bytes]:
    """The records of a file that W&B wrote offline, in LevelDB's log format: blocks of chunks after seven bytes."""
    content, records, part = file.read_bytes(), [], b""
    place = 7
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last chunk of several
            records.append(part)
            part = b""
    return records


def wait_until_written(file: Path) -> None:
    """Until W&B's service, another process, has written the file's end, which is after the run has ended here."""
    from wandb.proto import wandb_internal_pb2

    end = time.monotonic() + 30
    while time.monotonic() < end:
        for content in wandb_records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.HasField("exit"):
                return
        time.sleep(0.05)
    raise AssertionError(f"{file} has no end")


def wandb_run(run: Path) -> tuple[Curves, dict[str, object], set[str]]:
    """The curves, the settings and the ids in what W&B wrote to a run's folder."""
    from wandb.proto import wandb_internal_pb2

    curves: Curves = {}
    config: dict[str, object] = {}
    ids = set()
    for file in sorted((run / "wandb").glob("offline-run-*/run-*.wandb")):
        wait_until_written(file)
        for content in wandb_records(file):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            if record.HasField("run"):
                ids.add(record.run.run_id)
                config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.HasField("history"):
                row = {(item.key or "/".join(item.nested_key)): item.value_json for item in record.history.item}
                for name in row:
                    if not name.startswith("_"):
                        curves.setdefault(name, {})[int(row["_step"])] = json.loads(row[name])
    return curves, config, ids


def mlflow_run(workspace: Path, run: Path) -> tuple[Curves, dict[str, str], str]:
    """The curves, the parameters and the status of the only run that MLflow has under that name."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient((workspace / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("mlcl")
    assert experiment is not None
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == run.name
    curves = {}
    for name in found.data.metrics:
        history = client.get_metric_history(found.info.run_id, name)
        assert len({metric.step for metric in history}) == len(history)
        curves[name] = {metric.step: metric.value for metric in history}
    return curves, found.data.params, found.info.status


def require_curves(found: Curves, run: Path) -> None:
    expected = {scalars.NOT_IN_NAMES.sub("_", name): values for name, values in logged(run).items()}
    found = {scalars.NOT_IN_NAMES.sub("_", name): values for name, values in found.items()}
    assert [*found.pop("time/epoch_seconds")] == [1, 2, 3, 4]
    assert found == expected


def cut_and_resume(profile: Profile, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Train, lose the power in epoch 4 so that epoch 3 is logged and not saved, and resume at epoch 3."""
    real = Trainer.run_epoch

    def cut(trainer: Trainer, *after: object) -> dict[str, float]:
        if trainer.epoch == 4:
            raise SystemExit
        return real(trainer, *after)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "run_epoch", cut)
    monkeypatch.setattr(Trainer, "state", lambda self, real=Trainer.state: _saved_before(self, real))
    with pytest.raises((SystemExit, Interrupted)):
        train(profile, NoProgress(), COMBINER)
    monkeypatch.undo()
    monkeypatch.setenv("WANDB_MODE", "offline")
    return train(profile, NoProgress(), COMBINER, resume=Resume.NEWEST).run


def _saved_before(trainer: Trainer, real: object) -> object:
    if trainer.epoch == 4:
        raise OSError("no power")
    return real(trainer)  # type: ignore[operator]


@pytest.mark.parametrize("resumed", [False, True])
def test_wandb_offline_has_the_curves_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    profile = profile_of(tmp_path, "wandb", "checkpoints.every_epochs=2")
    run = cut_and_resume(profile, monkeypatch) if resumed else train(profile, NoProgress(), COMBINER).run
    curves, config, ids = wandb_run(run)
    require_curves(curves, run)
    assert len(ids) == 1
    assert config["seed"] == 0
    assert config["combiner"]["levels"] == ["sum", "cat", "hybrid"]  # type: ignore[index]


@pytest.mark.parametrize("resumed", [False, True])
def test_mlflow_on_a_folder_has_the_curves_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resumed: bool
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    profile = profile_of(tmp_path, "mlflow", "checkpoints.every_epochs=2")
    run = cut_and_resume(profile, monkeypatch) if resumed else train(profile, NoProgress(), COMBINER).run
    curves, parameters, status = mlflow_run(tmp_path / "work", run)
    require_curves(curves, run)
    assert status == "FINISHED"
    assert (parameters["seed"], parameters["combiner.epochs"]) == ("0", "4")
    assert parameters["combiner.levels"] == "['sum', 'cat', 'hybrid']"


@pytest.mark.parametrize("logger", ["wandb", "mlflow"])
def test_logger_that_is_not_installed_is_an_error_before_training(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logger: str
) -> None:
    world(tmp_path, "cirr")
    monkeypatch.setattr(scalars.importlib.util, "find_spec", lambda _: None)
    for command in ("train-combiner", "sweep", "finetune"):
        outcome = mlcl(command, "--set", f"loggers=[{logger}]")
        assert outcome.code == MachineError.exit_code
        assert outcome.err.count("error:") == 1
        assert f"{logger} is not installed. Run `pip install '.[{logger}]'`" in outcome.err
    assert not (tmp_path / "work").exists()


def test_logger_that_cannot_start_is_an_error_before_the_first_epoch(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    world(tmp_path, "cirr")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    outcome = mlcl("train-combiner", "--set", "loggers=[mlflow]", "--set", "combiner.sscl=[]")
    assert outcome.code == MachineError.exit_code
    assert "MLflow cannot start" in outcome.err
    assert "take mlflow out of loggers" in outcome.err
    (run,) = (tmp_path / "work/combiner").iterdir()
    assert not (run / "metrics.jsonl").exists()


def test_a_logger_that_fails_later_does_not_stop_the_run(
    mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    def lost(*_: object, metrics: object = (), **__: object) -> None:
        if metrics:
            raise ConnectionError("the server is gone\nand more")

    world(tmp_path, "cirr")
    monkeypatch.setattr(MlflowClient, "log_batch", lost)
    outcome = mlcl("train-combiner", "--set", "loggers=[mlflow]", "--set", "combiner.sscl=[]", "--json")
    assert outcome.json["epochs"] == 2
    assert outcome.err.count("mlflow failed and gets no more figures of this run (the server is gone)") == 1
