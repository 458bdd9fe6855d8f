"""`mlcl runs` lists, shows and removes runs."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import Mlcl
from filelock import FileLock
from world import world


def test_runs_are_listed_shown_and_removed(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    assert "no runs" in mlcl("runs").out
    for _ in range(2):
        mlcl("train-combiner", "--set", "combiner.augmented_views=1")
    mlcl("finetune", "--encoder", "text", "--epochs", "1")
    listed = mlcl("runs", "--json").json["runs"]
    assert [run["stage"] for run in listed] == ["combiner", "combiner", "finetune"]
    assert {run["state"] for run in listed} == {"finished"}
    assert (listed[0]["epoch"], listed[0]["epochs"], listed[0]["metric"]) == (2, 2, "arithmetic_mean")
    assert all(run["name"] in mlcl("runs").out for run in listed)

    name = listed[1]["name"]  # a run of the other stage may have begun in the same second
    full_name = f"combiner/{name}"
    assert mlcl("runs", "show", full_name, "--json").json["score"] == listed[1]["score"]
    assert "architecture" in mlcl("runs", "show", full_name).out
    several = mlcl("runs", "show", "cirr")
    assert several.code == 2
    assert "matches 3 runs" in several.err

    folder = tmp_path / "work/combiner" / name
    assert mlcl("runs", "rm", full_name).code != 0  # not confirmed
    assert folder.exists()
    assert mlcl("runs", "rm", full_name, "--yes").code == 0
    assert not folder.exists()
    assert len(mlcl("runs", "--json").json["runs"]) == 2


def test_run_in_training_differs_from_one_whose_process_died(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    mlcl("train-combiner", "--set", "combiner.augmented_views=1")
    (folder,) = (tmp_path / "work/combiner").iterdir()
    summary = folder / "run.json"
    summary.write_text(summary.read_text().replace('"state": "finished"', '"state": "running"'))
    assert mlcl("runs", "--json").json["runs"][0]["state"] == "interrupted"
    with FileLock(folder / ".lock"):
        assert mlcl("runs", "--json").json["runs"][0]["state"] == "running"
        refused = mlcl("runs", "rm", folder.name, "--yes")
    assert refused.code == 2
    assert folder.exists()


@pytest.fixture
def run(mlcl: Mlcl, tmp_path: Path) -> Path:
    """The folder of the workspace's only run."""
    world(tmp_path, "cirr", triplets=8)
    assert mlcl("train-combiner", "--epochs", "1", "--set", "combiner.augmented_views=1").code == 0
    (folder,) = (tmp_path / "work/combiner").iterdir()
    return folder


@pytest.mark.parametrize("name", ["", "combiner/", "combiner", "c/", "/", ".", "..", "*", " "])
def test_unknown_name_deletes_nothing(mlcl: Mlcl, run: Path, name: str) -> None:
    outcome = mlcl("runs", "rm", name, "--yes")
    assert outcome.code == 2
    assert "matches no run" in outcome.err
    assert run.exists()


def test_empty_name_in_the_runs_own_folder_deletes_nothing(mlcl: Mlcl, run: Path, tmp_path: Path) -> None:
    assert mlcl("runs", "rm", "", "--yes", "--profile", str(tmp_path / "mlcl.yaml"), folder=run).code == 2
    assert run.exists()


@pytest.mark.parametrize("beginning", ["cirr", "combiner/cirr"])
def test_unique_prefix_is_enough_and_the_whole_name_is_shown(mlcl: Mlcl, run: Path, beginning: str) -> None:
    outcome = mlcl("runs", "rm", beginning, "--yes")
    assert outcome.code == 0
    assert f"Run: {run} (" in outcome.err
    assert f"Deleted {run}" in outcome.out
    assert not run.exists()


def test_run_in_training_is_not_deleted_even_with_a_damaged_summary(mlcl: Mlcl, run: Path) -> None:
    (run / "run.json").write_text("{")
    with FileLock(run / ".lock"):
        outcome = mlcl("runs", "rm", run.name, "--yes")
    assert outcome.code == 2
    assert "is being trained" in outcome.err
    assert (run / "last.safetensors").exists()
    assert mlcl("runs", "rm", run.name, "--yes").code == 0
    assert not run.exists()


def test_linked_run_is_listed_and_never_deleted(mlcl: Mlcl, run: Path, tmp_path: Path) -> None:
    real = run.rename(tmp_path / "elsewhere")
    run.symlink_to(real)
    assert len(mlcl("runs", "--json").json["runs"]) == 1
    before = sorted(path.name for path in real.iterdir())
    outcome = mlcl("runs", "rm", run.name, "--yes")
    assert outcome.code == 2
    assert f"{run}: is a symbolic link" in outcome.err
    assert run.is_symlink()
    assert sorted(path.name for path in real.iterdir()) == before


def test_deleting_a_run_does_not_follow_links_in_it(mlcl: Mlcl, run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("precious")
    (run / "link").symlink_to(tmp_path / "precious")
    assert mlcl("runs", "rm", run.name, "--yes").code == 0
    assert not run.exists()
    assert (tmp_path / "precious/file").read_text() == "precious"


def test_run_in_a_linked_stage_folder_can_be_removed(mlcl: Mlcl, run: Path, tmp_path: Path) -> None:
    shutil.move(run.parent, tmp_path / "disk")
    run.parent.symlink_to(tmp_path / "disk")
    assert mlcl("runs", "rm", run.name, "--yes").code == 0
    assert not list((tmp_path / "disk").iterdir())


def test_typo_in_a_name_suggests_the_nearest_run(mlcl: Mlcl, run: Path) -> None:
    assert f"'ciir' matches no run; did you mean '{run.name}'?" in mlcl("runs", "show", "ciir").err
    typo = mlcl("evaluate", "--checkpoint", "ciir")
    assert f"'ciir' is not a file and matches no combiner run; did you mean '{run.name}'?" in typo.err


def test_name_that_matches_several_runs_asks_for_more_of_it(mlcl: Mlcl, run: Path) -> None:
    shutil.copytree(run, run.with_name("cirr-other"))
    outcome = mlcl("runs", "show", "cirr")
    assert outcome.code == 2
    assert "'cirr' matches 2 runs: " in outcome.err
    assert outcome.err.rstrip().endswith(". Use more of the name")


def test_unanswered_confirmation_deletes_nothing_and_names_the_option(mlcl: Mlcl, run: Path) -> None:
    outcome = mlcl("runs", "rm", run.name)
    assert outcome.code == 2
    assert outcome.err.rstrip().endswith("not answered. Use --yes to delete without confirmation")
    assert run.exists()


def test_size_has_a_unit_for_people_and_is_bytes_in_json(mlcl: Mlcl, run: Path) -> None:
    assert "\nsize: " in mlcl("runs", "show", run.name).out
    assert "bytes: " not in mlcl("runs", "show", run.name).out
    assert mlcl("runs", "show", run.name, "--json").json["bytes"] > 0


def test_name_and_note_are_kept_and_shown(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    note = "hybrid alone; [red]see[/red] the ablation"
    settings = ("--set", "combiner.sscl=[]", "--set", "checkpoints.every_epochs=1")
    assert mlcl("train-combiner", *settings, "--name", "hybrid_1", "--note", note).code == 0
    folder = tmp_path / "work/combiner/hybrid_1"
    assert f"note: {note}" in mlcl("runs", "show", "hybrid_1").out
    assert mlcl("runs", "show", "hybrid_1", "--json").json["note"] == note
    taken = mlcl("train-combiner", *settings, "--name", "hybrid_1")
    assert taken.code == 2
    assert f"{folder}: already exists. Choose another --name" in taken.err
    assert "Data:" not in taken.err  # refused before anything is read
    assert mlcl("finetune", "--epochs", "1", "--name", "hybrid_1").code == 0  # of the other stage

    summary = folder / "run.json"  # a run that was cut after its first epoch
    summary.write_text(summary.read_text().replace('"state": "finished"', '"state": "running"'))
    (folder / "last.safetensors").unlink()
    other = mlcl("train-combiner", *settings, "--name", "hybrid_2", "--resume")
    assert other.code == 2
    assert "no unfinished run to resume (cirr, hybrid_2)" in other.err
    resumed = mlcl("train-combiner", *settings, "--name", "hybrid_1", "--resume")
    assert resumed.code == 0
    assert "resuming at epoch 2" in resumed.err
    assert mlcl("runs", "show", "combiner/hybrid_1", "--json").json["note"] == note


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/a", "a.b", "-a", " a", "a\nb", "a" * 101, "nul\0"])
def test_name_that_is_no_plain_file_name_is_refused(mlcl: Mlcl, tmp_path: Path, name: str) -> None:
    world(tmp_path, "cirr")
    outcome = mlcl("train-combiner", f"--name={name}")
    assert outcome.code == 2
    assert "--name: cannot be a run's name" in outcome.err
    assert not (tmp_path / "work").exists()


def test_list_shows_what_differs_at_any_width(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world(tmp_path, "cirr")
    plain = ("--set", "combiner.sscl=[]")
    mlcl("finetune", "--encoder", "text", "--epochs", "1", "--name", "text")
    mlcl("train-combiner", *plain, "--name", "first", "--set", "clip.checkpoint=none")
    (alone,) = [run for run in mlcl("runs", "--json").json["runs"] if run["name"] == "first"]
    assert alone["differs_in"] == {}
    mlcl("train-combiner", *plain, "--name", "second", "--set", "seed=7", "--set", "combiner.levels=[sum,cat]")
    differing = {run["name"]: run["differs_in"] for run in mlcl("runs", "--json").json["runs"]}
    assert differing == {
        "text": {},
        "first": {"levels": "[sum, cat, hybrid]", "seed": "0", "clip": "untuned"},
        "second": {"levels": "[sum, cat]", "seed": "7", "clip": "text"},
    }
    for width in ("200", "80", "40"):
        monkeypatch.setenv("COLUMNS", width)
        shown = mlcl("runs").out
        assert "levels [sum, cat], seed 7, clip text" in shown
        assert all(name in shown for name in ("first", "second", "text"))


def test_evaluate_says_that_the_newest_combiner_is_not_the_best(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    plain = ("--set", "combiner.sscl=[]", "--epochs", "1")
    for name in ("one", "two"):
        mlcl("train-combiner", *plain, "--name", name)
    summary = tmp_path / "work/combiner/one/run.json"
    stored = json.loads(summary.read_text())
    hint = "This is not the newest combiner"
    for gain, expected in ((0, False), (5, True), (-5, False)):
        best = stored["bests"]["arithmetic_mean"]
        changed = {**stored["bests"], "arithmetic_mean": {**best, "score": best["score"] + gain}}
        summary.write_text(json.dumps({**stored, "bests": changed}))
        err = mlcl("evaluate", "--quiet").err
        assert (hint in err) == expected
        assert ("Combiner: combiner/one, best of 2" in err) == expected
    summary.write_text(json.dumps(stored))
