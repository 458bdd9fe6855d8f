"""Files of earlier formats are read as they were written. `older/` holds one of each, written by version 0.1.0."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from world import world

from mlcl_cli.config import load_profile
from mlcl_cli.errors import DataError
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.weights import fingerprint
from mlcl_cli.progress import NoProgress
from mlcl_cli.runs.checkpoints import TrainingState, load_checkpoint, load_state, stored_fingerprint
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.run import LAST, PREVIOUS
from mlcl_cli.signals import Interrupted, interruptible
from mlcl_cli.training.loop import Trainer
from mlcl_cli.workflows.resume import Resume
from mlcl_cli.workflows.stages import COMBINER
from mlcl_cli.workflows.train import train

OLDER = Path(__file__).parent / "older"
CHECKPOINT, STATE = OLDER / "checkpoint-1.safetensors", OLDER / "training-state-1.safetensors"
CLIP = ClipRecord(
    model="../clip.pt", checkpoint=None, fingerprint="21b877bfacdabad1", base="21b877bfacdabad1", tuned=[]
)
FINGERPRINTS = (
    "f74205c374bd916f",
    "804e4538b24fba46",
    "ba505adbf5c4e489",
)  # checkpoint, weights and optimizer of the state


def test_checkpoint_of_format_1_loads() -> None:
    checkpoint = load_checkpoint(CHECKPOINT, Kind.COMBINER)
    about = checkpoint.about
    assert (about.epoch, about.selected_by, about.score) == (1, "arithmetic_mean", pytest.approx(41.0714286))
    assert (about.dataset, about.protocol, about.pruned, about.seed) == ("cirr", "cirr-val", False, 0)
    assert (about.clip, about.image) == (CLIP, ImageRecord(transform="targetpad", target_ratio=1.25))
    assert about.fingerprint == fingerprint(checkpoint.state) == stored_fingerprint(CHECKPOINT) == FINGERPRINTS[0]
    assert about.architecture is not None
    assert Combiner.from_state(checkpoint.state).architecture.levels == tuple(about.architecture.levels)


def test_training_state_of_format_1_loads() -> None:
    state, about = load_state(STATE)
    assert (state.epoch, state.steps_done) == (2, 2)
    assert fingerprint(state.weights) == FINGERPRINTS[1]
    assert fingerprint(state.optimizer) == FINGERPRINTS[2]
    assert state.plain.history == ["loss", "hybrid", "cat", "sum", "sscl_mid", "sscl_high", "gradient_norm"]
    assert {name: values.shape for name, values in state.history.items()} == dict.fromkeys(state.plain.history, (2,))
    assert state.plain.groups[0]["lr"] == pytest.approx(0.00094555776)
    assert about["kind"] == "combiner"
    checkpoint = load_checkpoint(STATE, Kind.COMBINER)
    assert (checkpoint.about.epoch, checkpoint.about.fingerprint, checkpoint.about.clip) == (2, FINGERPRINTS[1], CLIP)


@pytest.mark.parametrize(
    ("path", "load"), [(CHECKPOINT, load_checkpoint), (STATE, load_checkpoint), (STATE, load_state)]
)
def test_damaged_file_of_format_1_is_an_error(tmp_path: Path, path: Path, load: Callable[[Path], object]) -> None:
    damaged, content = tmp_path / path.name, path.read_bytes()
    for place in (200, len(content) // 2, len(content) - 3):
        damaged.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(DataError, match=path.name):
            load(damaged)


def write_format_1(path: Path, spelling: str) -> TrainingState:
    """Rewrite a state in format 1, with that spelling of the optimizer's tensors."""
    state, about = load_state(path)
    parts = {"weights": state.weights, spelling: state.optimizer, "history": state.history}
    tensors = {f"{part}.{name}": tensor for part, values in parts.items() for name, tensor in values.items()}
    fields = {"about": about, "epoch": state.epoch, "steps_done": state.steps_done, "plain": state.plain.model_dump()}
    text = json.dumps(fields)
    checksum = hashlib.sha256(f"{text}{fingerprint(tensors)}".encode()).hexdigest()
    save_file(tensors, path, {"format": "mlcl training state 1", "told": text, "checksum": checksum})
    return state


@pytest.mark.parametrize("spelling", ["optimizer", "optimiser"])
def test_run_with_a_state_of_format_1_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: str) -> None:
    world(tmp_path, "cirr", triplets=20)
    settings = ["combiner.epochs=3", "combiner.augmented_views=1", "combiner.schedule=cosine_restarts"]
    profiles = [load_profile(tmp_path / "mlcl.yaml", [*settings, f"workspace={tmp_path}/{name}"]) for name in "ab"]
    whole = train(profiles[0], NoProgress(), COMBINER)
    step, steps = Trainer._step, iter(range(100))

    def interrupted_step(self: Trainer, batch: object) -> None:
        if next(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self, batch)

    monkeypatch.setattr(Trainer, "_step", interrupted_step)
    with pytest.raises(Interrupted), interruptible():
        train(profiles[1], NoProgress(), COMBINER)
    (run,) = (tmp_path / "b/combiner").iterdir()
    state = write_format_1(run / LAST, spelling)
    again, _ = load_state(run / LAST)
    assert again.plain == state.plain
    assert all(torch.equal(again.optimizer[name], tensor) for name, tensor in state.optimizer.items())
    (run / PREVIOUS).unlink(missing_ok=True)
    resumed = train(profiles[1], NoProgress(), COMBINER, resume=Resume.NEWEST)
    assert resumed.run == run
    assert resumed.best == whole.best
    assert (run / "metrics.jsonl").read_text() == (whole.run / "metrics.jsonl").read_text()
    assert load_checkpoint(run / LAST).about.fingerprint == load_checkpoint(whole.run / LAST).about.fingerprint
