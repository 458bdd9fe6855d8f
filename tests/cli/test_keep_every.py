"""`checkpoints.keep_every: N` keeps every Nth epoch's weights for good, as checkpoints like any other."""

import json
import os
import signal
from pathlib import Path

import pytest
from command_line import Mlcl
from world import world

from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.training.loop import Trainer

KEEP = ("--set", "checkpoints.keep_every=2", "--set", "combiner.epochs=5", "--json")


def kept(run: Path) -> list[str]:
    return sorted(path.name for path in run.glob("epoch-*"))


def test_kept_epochs_evaluate_to_what_the_run_logged(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    run = Path(mlcl("train-combiner", *KEEP).json["run"])
    assert kept(run) == ["epoch-0002.safetensors", "epoch-0004.safetensors"]
    logged = {row["epoch"]: row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())}
    for epoch in (2, 4):
        file = run / f"epoch-{epoch:04}.safetensors"
        found = mlcl("evaluate", "--checkpoint", str(file), "--json").json["metrics"]
        assert found == {name: logged[epoch][name] for name in found}
        assert load_checkpoint(file).about.epoch == epoch
    assert mlcl("export", str(file), "combiner.pt").code == 0


def test_nothing_is_kept_by_default(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    assert kept(Path(mlcl("train-combiner", "--json").json["run"])) == []


def test_kept_epoch_of_a_tuned_clip_can_be_evaluated(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    run = Path(mlcl("finetune", "--encoder", "text", "--set", "checkpoints.keep_every=1", "--json").json["run"])
    assert kept(run) == ["epoch-0001.safetensors", "epoch-0002.safetensors"]
    tuned = ("evaluate", "--combining-function", "sum", "--json", "--set")
    found = mlcl(*tuned, f"clip.checkpoint={run}/epoch-0001.safetensors").json["metrics"]
    logged = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert found == {name: logged[name] for name in found}


def test_kept_epochs_survive_resume(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path, "cirr", triplets=16)
    whole = Path(mlcl("train-combiner", *KEEP).json["run"])
    real = Trainer._step

    def step(self: Trainer, batch: object) -> None:
        if (self.epoch, self.steps_done) == (4, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", step)
        assert mlcl("train-combiner", *KEEP).code == 75
    (cut,) = (path for path in whole.parent.iterdir() if path != whole)
    assert kept(cut) == ["epoch-0002.safetensors"]
    written = (cut / "epoch-0002.safetensors").stat()
    assert mlcl("train-combiner", *KEEP, "--resume").code == 0
    assert kept(cut) == kept(whole)
    assert (cut / "epoch-0002.safetensors").stat() == written
    for name in kept(whole):
        assert load_checkpoint(cut / name).about.fingerprint == load_checkpoint(whole / name).about.fingerprint
