"""What differs between runs, from what each of them recorded."""

from pathlib import Path

import pytest

from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.differences import differences, settings_of, varying
from mlcl_cli.runs.listing import StoredRun
from mlcl_cli.runs.run import Run, RunSettings
from mlcl_cli.runs.summary import RunState, RunSummary


def summary(
    fingerprint: str = "a" * 16, tuned: str | None = None, data: str | None = None, **profile: object
) -> RunSummary:
    return RunSummary.model_validate(
        {
            "kind": Kind.COMBINER,
            "command": "train-combiner",
            "created": "2026-01-31T12:00:00+00:00",
            "state": RunState.FINISHED,
            "epochs": 3,
            "epoch": 3,
            "bests": {},
            "dataset": "shoes",
            "protocol": "shoes",
            "clip": ClipRecord(model="RN50x4", checkpoint=tuned, fingerprint=fingerprint),
            "image": ImageRecord(transform="targetpad", target_ratio=1.25),
            "seed": 0,
            "device": "cpu",
            "versions": {},
            "identity": {"profile": {"combiner": {"epochs": 3, **profile}}},
            **({"data": {"train": data}} if data else {}),
        }
    )


def test_seed_clip_and_training_data_come_last() -> None:
    (settings,) = settings_of([summary(levels=["sum"], data="d" * 16)])
    assert settings == {
        "levels": ["sum"], "epochs": 3, "protocol": "shoes", "seed": 0, "clip": "untuned", "training data": "dddddd",
    }  # fmt: skip
    assert [*settings][-3:] == ["seed", "clip", "training data"]


def test_values_are_as_a_profile_writes_them() -> None:
    runs = [summary(levels=["sum", "cat"], flag=True, rate=0.5), summary(levels=[], flag=False, rate=2)]
    assert differences(runs) == [
        {"levels": "[sum, cat]", "flag": "true", "rate": "0.5"},
        {"levels": "[]", "flag": "false", "rate": "2"},
    ]
    assert differences(runs[:1]) == [{}]


def test_clips_are_named_after_the_run_that_tuned_them_and_told_apart_by_their_fingerprint() -> None:
    tuned = summary("b" * 16, "finetune/text/best.safetensors")
    assert [own["clip"] for own in differences([summary(), tuned])] == ["untuned", "text"]
    again = summary("c" * 16, "finetune/text/best.safetensors")
    assert [own["clip"] for own in differences([summary(), tuned, again])] == ["untuned", "text bbbbbb", "text cccccc"]


def test_data_that_differs_with_something_else_is_not_told() -> None:
    assert differences([summary(data="d" * 16, rate=1), summary(data="e" * 16, rate=2)]) == [
        {"rate": "1"},
        {"rate": "2"},
    ]
    assert [[*own] for own in differences([summary(data="d" * 16), summary(data="e" * 16)])] == [["training data"]] * 2
    runs = [summary(data="d" * 16, rate=1), summary(data="e" * 16, rate=1), summary(data="e" * 16, rate=2)]
    assert varying(settings_of(runs)) == ["rate", "training data"]


@pytest.mark.parametrize("name", [None, "ours", "shoes-2026"])
def test_a_run_is_named_by_its_user_or_not_at_all(tmp_path: Path, name: str | None) -> None:
    settings = RunSettings(Kind.COMBINER, "train-combiner", 1, ("recall_mean",), summary())
    run = Run.create(tmp_path, "shoes", "dataset: shoes", settings, name=name)
    assert StoredRun(run.folder, Kind.COMBINER).given_name == name
    again = Run.create(tmp_path, "shoes", "dataset: shoes", settings)
    assert StoredRun(again.folder, Kind.COMBINER).given_name is None
