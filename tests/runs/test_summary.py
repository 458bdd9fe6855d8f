"""`run.json` is read as it was written, and what cannot be valid is refused with its key."""

import json
from pathlib import Path

import pytest
from filelock import FileLock
from pydantic import ValidationError

from mlcl_cli.errors import DataError
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.listing import list_runs
from mlcl_cli.runs.run import LOCK
from mlcl_cli.runs.summary import BestCheckpoint, RunState, RunSummary

BEST = BestCheckpoint(epoch=2, score=41.5, checkpoint="best.safetensors", metrics={"recall_mean": 41.5})


def summary(checkpoint: str | None = None, state: RunState = RunState.FINISHED) -> RunSummary:
    return RunSummary(
        kind=Kind.COMBINER,
        command="train-combiner",
        created="2026-01-01T00:00:00+00:00",
        state=state,
        epochs=3,
        epoch=3,
        bests={"recall_mean": BEST},
        dataset="shoes",
        protocol="shoes",
        clip=ClipRecord(model="RN50", checkpoint=checkpoint, fingerprint="0" * 16),
        image=ImageRecord(transform="targetpad", target_ratio=1.25),
        seed=0,
        device="cpu",
        versions={"torch": "2.13"},
    )


def write(folder: Path, **changes: object) -> Path:
    path = folder / "combiner/run/run.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(json.loads(summary().model_dump_json(exclude_unset=True)) | changes))
    return path


def test_summary_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    summary().write(path)
    assert RunSummary.read(path) == summary()
    content = json.loads(path.read_text())
    assert content["clip"] == {"model": "RN50", "checkpoint": None, "fingerprint": "0" * 16}
    assert (content["kind"], content["state"], content["bests"]["recall_mean"]["score"]) == (
        "combiner",
        "finished",
        41.5,
    )
    assert not {"identity", "encoder", "architecture", "data"} & content.keys()


def test_runs_of_older_versions_lack_what_they_did_not_record(tmp_path: Path) -> None:
    read = RunSummary.read(write(tmp_path))
    assert (read.identity, read.data, read.inference_weights, read.clip.base, read.clip.tuned) == (None,) * 5


def test_unknown_keys_are_kept(tmp_path: Path) -> None:
    assert RunSummary.read(write(tmp_path, note="first try")).as_json()["note"] == "first try"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"state": "damaged"}, "state: "),
        ({"clip": {"model": "RN\x0050", "checkpoint": None, "fingerprint": ""}}, "NUL"),
        ({"created": "2026-01-01T00:00:00"}, "the time zone is missing"),
        ({"identity": "same"}, "identity: "),
    ],
)
def test_invalid_summary_names_its_key(tmp_path: Path, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        RunSummary.read(write(tmp_path, **changes))


def test_path_with_nul_is_never_written() -> None:
    with pytest.raises(ValidationError, match="NUL"):
        summary(checkpoint="best\0.safetensors")


def test_running_state_follows_the_lock(tmp_path: Path) -> None:
    folder = write(tmp_path, state="running").parent
    with FileLock(folder / LOCK):
        assert list_runs(tmp_path)[0].state is RunState.RUNNING
    (run,) = list_runs(tmp_path, Kind.COMBINER)
    assert (run.state, run.resumable, run.name) == (RunState.INTERRUPTED, False, "combiner/run")
    (folder / "last.safetensors").touch()
    assert run.resumable
    assert list_runs(tmp_path, Kind.CLIP) == []


def test_damaged_runs_are_listed_first(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "finetune/later").mkdir(parents=True)
    (tmp_path / "finetune/later/run.json").write_text("{}")
    damaged, run = list_runs(tmp_path)
    assert (damaged.state, damaged.created, run.problem) == (RunState.DAMAGED, "", None)
    with pytest.raises(DataError, match="is not a valid run summary"):
        damaged.summary  # noqa: B018
