"""Which CLIP and which combiner the commands use, what they report about it, and what makes results differ."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import Mlcl, Outcome
from typer.testing import CliRunner
from world import fashioniq, tiny_clip, world

from mlcl_cli.cli.app import app

FAST = ("--epochs", "1", "--set", "combiner.augmented_views=1")


@pytest.fixture
def trained(cirr_runs: Path, tmp_path: Path) -> Path:
    """A copy of the trained workspace, to change."""
    return shutil.copytree(cirr_runs, tmp_path, dirs_exist_ok=True)


def runs_of(folder: Path, stage: str) -> list[Path]:
    runs = [path.parent for path in folder.glob(f"work/{stage}/*/run.json")]
    return sorted(runs, key=lambda run: json.loads((run / "run.json").read_text())["created"])


def summary_of(run: Path) -> Any:
    return json.loads((run / "run.json").read_text())


def amend(run: Path, change: Callable[[Any], None]) -> Path:
    summary = summary_of(run)
    change(summary)
    (run / "run.json").write_text(json.dumps(summary))
    return run


def another(run: Path, name: str, score: Any, **fields: Any) -> Path:
    """A copy of a run with another score and other fields."""

    def change(summary: Any) -> None:
        summary.update(fields)
        for best in summary["bests"].values():
            best["score"] = score

    return amend(shutil.copytree(run, run.with_name(name)), change)


def started_from(outcome: Outcome) -> str | None:
    """The tuned CLIP that a run recorded, by its run's name."""
    checkpoint = summary_of(Path(outcome.json["run"]))["clip"]["checkpoint"]
    return None if checkpoint is None else Path(checkpoint).parent.name


# --- The CLIP that fine-tuning starts from


@pytest.mark.parametrize("encoder", ["text", "both"])
def test_second_run_of_the_same_encoder_starts_from_the_base(mlcl: Mlcl, trained: Path, encoder: str) -> None:
    assert runs_of(trained, "finetune")
    outcome = mlcl("finetune", "--encoder", encoder, "--set", "seed=1", "--epochs", "1", "--json")
    assert started_from(outcome) is None
    assert "--from RUN|FILE|none chooses another start" in outcome.err


def test_seeds_in_one_workspace_are_independent_chains(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    second = another(first, "cirr-2", 1.0, seed=1)
    outcome = mlcl("finetune", "--encoder", "image", "--set", "seed=1", "--epochs", "1", "--json")
    assert started_from(outcome) == second.name
    assert "with only its text encoder tuned, seed 1, arithmetic_mean 1.00" in outcome.err
    tuned = summary_of(Path(outcome.json["run"]))["clip"]
    assert (tuned["tuned"], tuned["base"]) == (["text"], summary_of(first)["clip"]["base"])
    other = mlcl("finetune", "--encoder", "image", "--set", "seed=5", "--epochs", "1", "--json")
    assert started_from(other) == first.name, "without a run of its seed, the best"
    again = mlcl("finetune", "--encoder", "text", "--epochs", "1", "--json")
    assert started_from(again) is None, "a CLIP with both encoders tuned is not a start"


def test_from_option_takes_a_run_name(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    outcome = mlcl("finetune", "--encoder", "text", "--from", first.name, "--epochs", "1", "--json")
    assert started_from(outcome) == first.name
    refused = mlcl("finetune", "--from", "nothing")
    assert (refused.code, "matches no finetune run" in refused.err) == (2, True)


# --- The CLIP that a combiner is trained on


def test_renamed_model_keeps_its_tuned_clip(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    (trained / "clip.pt").rename(trained / "renamed.pt")
    model = ("--set", "clip.model=renamed.pt")
    assert started_from(mlcl("train-combiner", *FAST, *model, "--json")) == first.name
    assert mlcl("evaluate", *model, "--json").json["clip"].endswith(f"{first.name}/best.safetensors")
    assert mlcl("report", "--set", "workers=1", "--json").code == 0


def test_moved_workspace_keeps_its_tuned_clip(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    (trained / "sub").mkdir()
    (trained / "work").rename(trained / "sub/work")
    outcome = mlcl("train-combiner", *FAST, "--set", "workspace=sub/work", "--json")
    assert started_from(outcome) == first.name
    assert "warning" not in outcome.err


def test_clip_validated_with_another_transform_is_used_with_a_warning(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    outcome = mlcl("train-combiner", *FAST, "--set", "image.target_ratio=1.5", "--json")
    assert started_from(outcome) == first.name
    assert (
        f"{first.name} was validated under settings other than the profile's: transform targetpad 1.25" in outcome.err
    )


def test_clip_validated_on_another_gallery_is_used_with_a_warning(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq")
    mlcl("finetune", "--encoder", "text", "--epochs", "1")
    (first,) = runs_of(tmp_path, "finetune")
    outcome = mlcl("train-combiner", *FAST, "--set", "evaluate.gallery=val", "--json")
    assert started_from(outcome) == first.name
    assert "settings other than the profile's: protocol fashioniq-original\n" in outcome.err


def test_clip_tuned_from_another_base_is_skipped_and_named(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    tiny_clip(trained / "clip.pt", seed=3)
    outcome = mlcl("train-combiner", *FAST, "--json")
    assert started_from(outcome) is None
    base = summary_of(first)["clip"]["base"]
    assert f"finetune/{first.name} (trained on a different CLIP with base {base})" in outcome.err


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"protocol": "cirr-val (pruned gallery)"}, "scored with a pruned gallery"),
        ({"data": {"train": "0" * 16, "val": "1" * 16}}, "scored with different validation data"),
        ({"protocol": "cirr-half"}, "scored with protocol cirr-half"),
        ({"image": {"transform": "clip", "target_ratio": 1.25}}, "scored with transform clip"),
        ({"state": "interrupted"}, "not finished"),
    ],
)
def test_incomparable_scores_are_skipped_with_the_reason(mlcl: Mlcl, trained: Path, fields: Any, reason: str) -> None:
    (first,), (combiner,) = runs_of(trained, "finetune"), runs_of(trained, "combiner")
    another(first, "cirr-2", 99.0, **fields)
    another(combiner, "cirr-3", 99.0, **fields)
    outcome = mlcl("train-combiner", *FAST, "--json")
    assert started_from(outcome) == first.name
    assert f"finetune/cirr-2 ({reason})" in outcome.err
    evaluated = mlcl("evaluate", "--json")
    assert "cirr-3" not in evaluated.json["checkpoint"]
    assert f"combiner/cirr-3 ({reason})" in evaluated.err


def test_whole_gallery_beats_a_newer_pruned_one(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "finetune")
    amend(first, lambda summary: summary.update(data={"train": "0" * 16, "val": "1" * 16}))
    another(first, "cirr-2", 99.0, protocol="cirr-val (pruned gallery)", created="2099-01-01T00:00:00+00:00")
    assert started_from(mlcl("train-combiner", *FAST, "--json")) == first.name


@pytest.mark.parametrize("score", [float("nan"), float("inf"), "99", True, None, [99]])
def test_non_numeric_scores_are_refused(mlcl: Mlcl, trained: Path, score: Any) -> None:
    (first,) = runs_of(trained, "combiner")
    damaged = another(first, "cirr-2", score)
    outcome = mlcl("evaluate", "--json")
    assert outcome.json["checkpoint"] == str(first / "best.safetensors")
    assert "warning" in outcome.err
    assert str(damaged / "run.json") in outcome.err


def test_checkpoint_outside_its_run_is_refused(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    shutil.copy(first / "best.safetensors", trained / "stray.safetensors")
    damaged = another(first, "cirr-2", 99.0)
    amend(damaged, lambda summary: summary["bests"]["arithmetic_mean"].update(checkpoint="../../../stray.safetensors"))
    assert mlcl("evaluate", "--json").json["checkpoint"] == str(first / "best.safetensors")


def test_runs_of_older_versions_are_traced_to_their_base(mlcl: Mlcl, trained: Path) -> None:
    (first,), (combiner,) = runs_of(trained, "finetune"), runs_of(trained, "combiner")
    tuned = Path(mlcl("finetune", "--encoder", "image", "--epochs", "1", "--json").json["run"])

    def forget(summary: Any) -> None:
        for field in ("base", "tuned"):
            del summary["clip"][field]
        for field in ("data", "pruned", "precision"):
            del summary[field]

    for run in (first, combiner, tuned):
        amend(run, forget)
    amend(tuned, lambda summary: summary["bests"]["arithmetic_mean"].update(score=99.0))
    outcome = mlcl("train-combiner", *FAST, "--json")
    assert started_from(outcome) == tuned.name
    assert "unknown validation data" in outcome.err
    assert started_from(mlcl("finetune", "--encoder", "image", "--epochs", "1", "--json")) == first.name
    shutil.rmtree(first)
    assert f"finetune/{tuned.name} (base CLIP not recorded)" in mlcl("train-combiner", *FAST).err


# --- The combiner that queries


def test_best_finished_combiner_is_used_and_named_beside_a_newer_one(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    best = another(first, "cirr-2", 90.0, created="2001-01-01T00:00:00+00:00")
    another(first, "cirr-3", 95.0, state="running", created="2099-01-01T00:00:00+00:00")
    message = "· Combiner: combiner/cirr-2, best of 2, arithmetic_mean 90.00\n"
    score = json.loads((first / "run.json").read_text())["bests"]["arithmetic_mean"]["score"]
    newest = f"combiner/{first.name}"
    hint = (
        f"· This is not the newest combiner: {newest} scored only {score:.2f}; --checkpoint {newest} takes that one\n"
    )
    evaluated = mlcl("evaluate", "--quiet", "--json")
    assert evaluated.err == message + hint
    assert evaluated.json["checkpoint"] == str(best / "best.safetensors")
    assert mlcl("submit-cirr", "--quiet", "--json").err == message + hint
    report = mlcl("report", "--quiet", "--json")
    assert report.err == message.replace("Combiner", "Run")
    assert [run["run"] for run in report.json["runs"]] == ["combiner/cirr-2"]
    assert mlcl("evaluate", "--combining-function", "sum", "--quiet", "--json").err.count("\n") == 1


def test_unfinished_combiner_is_used_where_no_finished_one_fits(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    amend(first, lambda summary: summary.update(state="interrupted"))
    outcome = mlcl("evaluate", "--json")
    assert outcome.json["checkpoint"] == str(first / "best.safetensors")
    assert f"warning: combiner/{first.name} is interrupted, but no finished run fits" in outcome.err


def test_combiner_is_chosen_by_the_named_clip(mlcl: Mlcl, trained: Path) -> None:
    (tuned,) = runs_of(trained, "combiner")
    untuned = Path(mlcl("train-combiner", *FAST, "--set", "clip.checkpoint=none", "--json").json["run"])
    amend(tuned, lambda summary: summary["bests"]["arithmetic_mean"].update(score=99.0))
    (clip,) = runs_of(trained, "finetune")
    for checkpoint, run in (("none", untuned), (str(clip / "best.safetensors"), tuned), ("auto", tuned)):
        chosen = mlcl("evaluate", "--set", f"clip.checkpoint={checkpoint}", "--json").json
        assert chosen["checkpoint"] == str(run / "best.safetensors")


def test_run_names_stand_for_their_best_checkpoints(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    path = str(first / "best.safetensors")
    for name in (first.name, f"combiner/{first.name}", "cirr", str(first), path):
        assert mlcl("evaluate", "--checkpoint", name, "--json").json["checkpoint"] == path
    geometric = ("--set", "combiner.select_by=geometric")
    chosen = mlcl("evaluate", "--checkpoint", first.name, *geometric, "--json").json["checkpoint"]
    assert Path(chosen).name == "best-geometric_mean.safetensors"
    (trained / "cirr").mkdir()
    assert mlcl("export", f"combiner/{first.name}", "out.pt", "--json").json["kind"] == "combiner"
    shutil.move(trained / "mlcl.yaml", trained / "other.yaml")
    assert mlcl("export", path, "again.pt").code == 0, "a path needs no profile"
    assert mlcl("export", "combiner/cirr", "named.pt", "--profile", "other.yaml").code == 0
    for file in ("again.pt", "named.pt"):
        weights = [torch.load(trained / path, weights_only=True)["Combiner"] for path in ("out.pt", file)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_unknown_names_and_runs_of_another_stage_are_refused(mlcl: Mlcl, trained: Path) -> None:
    (clip,) = runs_of(trained, "finetune")
    assert "is not a file and matches no combiner run. " in mlcl("evaluate", "--checkpoint", "nothing").err
    assert "holds a CLIP, expected a combiner" in mlcl("evaluate", "--checkpoint", f"finetune/{clip.name}").err
    assert "does not exist" in mlcl("evaluate", "--checkpoint", "nowhere.pt").err


def test_run_option_takes_a_run_name(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    amend(first, lambda summary: summary.update(state="interrupted"))
    outcome = mlcl("train-combiner", "--run", "cirr", "--set", "combiner.augmented_views=1", "--epochs", "1", "--json")
    assert outcome.json["run"] == str(first)


def test_run_names_complete_in_the_shell(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {stage: runs_of(trained, stage)[0].name for stage in ("finetune", "combiner")}
    for line, offered in (
        ("evaluate --checkpoint cirr", names["combiner"]),
        ("finetune --from cirr", names["finetune"]),
        ("export combiner/", f"combiner/{names['combiner']}"),
        ("train-combiner --run cirr", names["combiner"]),
        ("evaluate --checkpoint work/comb", "work/combiner/"),
    ):
        monkeypatch.setenv("_MLCL_COMPLETE", "complete_bash")
        words = ["mlcl", *line.split()]
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        monkeypatch.chdir(trained)
        result = CliRunner().invoke(app, [], prog_name="mlcl")
        assert offered in result.stdout.split(), line


# --- A combiner and its CLIP


def test_combiner_without_its_clip_names_the_clip_it_needs(mlcl: Mlcl, trained: Path) -> None:
    (first,), (clip,) = runs_of(trained, "combiner"), runs_of(trained, "finetune")
    best = shutil.copy(clip / "best.safetensors", trained / "tuned.safetensors")
    shutil.copy(first / "best.safetensors", trained / "combiner.safetensors")
    shutil.rmtree(clip)
    outcome = mlcl("evaluate", "--checkpoint", "combiner.safetensors")
    assert outcome.code == 3
    error = outcome.err.splitlines()[-1]
    fingerprint = summary_of(first)["clip"]["fingerprint"]
    for words in (fingerprint, f"finetune/{clip.name}/best.safetensors", "Set clip.checkpoint"):
        assert words in error
    (trained / "work/finetune/moved").mkdir()
    shutil.move(best, trained / "work/finetune/moved/best.safetensors")
    evaluated = mlcl("evaluate", "--checkpoint", "combiner.safetensors", "--json").json
    assert evaluated["clip"].endswith("work/finetune/moved/best.safetensors"), "its fingerprint is enough"


def test_combiner_finds_its_clip_in_its_own_workspace(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    outcome = mlcl("evaluate", "--checkpoint", str(first), "--set", "workspace=elsewhere", "--json")
    assert f"{trained}/work/finetune" in outcome.json["clip"]


def test_combiner_on_an_untuned_clip_names_the_model_it_needs(mlcl: Mlcl, trained: Path) -> None:
    run = mlcl("train-combiner", *FAST, "--set", "clip.checkpoint=none", "--json").json["run"]
    tiny_clip(trained / "clip.pt", seed=3)
    outcome = mlcl("evaluate", "--checkpoint", run)
    assert outcome.code == 3
    assert "Set clip.model" in outcome.err


def test_tuned_weights_of_a_replaced_model_are_refused(mlcl: Mlcl, trained: Path) -> None:
    (clip,) = runs_of(trained, "finetune")
    tiny_clip(trained / "clip.pt", seed=3)
    tuned = ("--set", f"clip.checkpoint={clip / 'best.safetensors'}")
    for line in (("evaluate", "--combining-function", "sum", *tuned), ("evaluate", *tuned), ("train-combiner", *tuned)):
        outcome = mlcl(*line)
        assert outcome.code == 3
        base = summary_of(clip)["clip"]["base"]
        assert f"was tuned from a CLIP with fingerprint {base}, but clip.model" in outcome.err.splitlines()[-1]


def test_zero_shot_transfer_is_allowed_with_a_warning(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    plain = mlcl("evaluate", "--json")
    assert plain.json["trained_on"] == "cirr"
    assert "zero-shot" not in plain.err
    fashioniq(trained / "fashion")
    other = ("--set", "dataset=fashioniq", "--set", "roots.fashioniq=fashion")
    outcome = mlcl("evaluate", "--checkpoint", first.name, *other, "--json")
    assert outcome.json["trained_on"] == "cirr"
    assert "was trained on cirr: on fashioniq this is zero-shot transfer" in outcome.err
    assert mlcl("evaluate", *other).code == 3, "auto never picks it"


# --- What makes results differ


def test_results_name_everything_that_changes_their_figures(mlcl: Mlcl, trained: Path) -> None:
    variants = {
        "device": (),
        "precision": ("precision=bf16",),
        "inference_weights": ("combiner.inference_weights=matched",),
    }
    results = {
        key: mlcl("evaluate", *(part for text in overrides for part in ("--set", text)), "--json").json
        for key, overrides in variants.items()
    }
    plain = results["device"]
    assert (plain["device"], plain["precision"], plain["inference_weights"]) == ("cpu", "fp32", "released")
    assert plain["image"] == {"transform": "targetpad", "target_ratio": 1.25}
    (run,) = runs_of(trained, "combiner")
    assert plain["data"] == summary_of(run)["data"]["val"]
    assert results["precision"]["precision"] == "bf16"
    assert results["inference_weights"]["inference_weights"] == "matched"
    shown = mlcl("evaluate").out
    assert "computed with: device cpu, precision fp32, inference weights released" in shown
    assert mlcl("evaluate", "--combining-function", "sum", "--json").json["inference_weights"] is None


def test_changed_caption_changes_the_data_digest(mlcl: Mlcl, trained: Path) -> None:
    plain = ("evaluate", "--combining-function", "sum", "--json")
    before = mlcl(*plain).json["data"]
    path = trained / "data/cirr/captions/cap.rc2.val.json"
    path.write_text(path.read_text().replace("bottles", "jars", 1))
    assert mlcl(*plain).json["data"] != before


@pytest.mark.usefixtures("trained")
def test_training_results_and_summaries_name_everything_that_changes_figures(mlcl: Mlcl) -> None:
    trained_result = mlcl("train-combiner", *FAST, "--json").json
    tuned_result = mlcl("finetune", "--encoder", "text", "--epochs", "1", "--json").json
    for result, weights in ((trained_result, "released"), (tuned_result, None)):
        summary = summary_of(Path(result["run"]))
        assert (result["device"], result["precision"], result["inference_weights"]) == ("cpu", "fp32", weights)
        assert set(result["data"]) == {"train", "val"}
        assert summary["data"] == result["data"]
        assert (summary["precision"], summary.get("inference_weights"), summary["pruned"]) == ("fp32", weights, False)


def test_deleting_a_run_names_the_runs_that_need_its_clip(mlcl: Mlcl, trained: Path) -> None:
    (first,), (combiner,) = runs_of(trained, "finetune"), runs_of(trained, "combiner")
    outcome = mlcl("runs", "rm", f"finetune/{first.name}", "--yes")
    assert f"1 run started from its CLIP and cannot be used without it: combiner/{combiner.name}" in outcome.err
    assert not first.exists()
