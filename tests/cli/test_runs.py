"""`mlcl runs` lists, shows and removes runs."""

from pathlib import Path

from conftest import Mlcl
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
    own = f"combiner/{name}"
    assert mlcl("runs", "show", own, "--json").json["score"] == listed[1]["score"]
    assert "architecture" in mlcl("runs", "show", own).out
    several = mlcl("runs", "show", "cirr")
    assert several.code == 2
    assert "names 3 runs" in several.err

    folder = tmp_path / "work/combiner" / name
    assert mlcl("runs", "rm", own).code != 0  # nobody said yes
    assert folder.exists()
    assert mlcl("runs", "rm", own, "--yes").code == 0
    assert not folder.exists()
    assert len(mlcl("runs", "--json").json["runs"]) == 2


def test_a_run_under_way_is_told_from_one_whose_process_died(mlcl: Mlcl, tmp_path: Path) -> None:
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
