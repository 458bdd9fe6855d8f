"""`mlcl sweep` trains what `train-combiner` trains, encodes and loads nothing twice, and adds up its figures."""

import csv
import json
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from command_line import Mlcl
from world import world

from mlcl_cli.models.encoder import Encoder
from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.workflows import base_clip, checkpoint_selection

PLAIN = ("--set", "combiner.sscl=[]")
GRID = ("--set", "combiner.levels=[sum,cat,hybrid]|[hybrid]", "--set", "combiner.learned_temperature=true|false")


def fingerprints(run: str | Path) -> dict[str, str]:
    """The weights of a run, best and last."""
    return {name: load_checkpoint(Path(run) / f"{name}.safetensors").about.fingerprint for name in ("best", "last")}


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every call of an encoder with its number of inputs, and every reading of a CLIP's weights."""
    calls: list[tuple[str, int]] = []
    for name in ("encode_images", "encode_texts"):
        real = getattr(Encoder, name)

        def counted(self: Encoder, inputs: Any, name: str = name, real: Any = real) -> Any:
            calls.append((name, len(inputs)))
            return real(self, inputs)

        monkeypatch.setattr(Encoder, name, counted)
    load_clip, load = base_clip.load_clip, checkpoint_selection.load_checkpoint

    def counted_clip(model: Any) -> Any:
        calls.append(("load_clip", 1))
        return load_clip(model)

    def counted_tuned(path: Path, *kind: Any) -> Any:
        calls.append(("load_tuned", 1))
        return load(path, *kind)

    monkeypatch.setattr(base_clip, "load_clip", counted_clip)
    monkeypatch.setattr(checkpoint_selection, "load_checkpoint", counted_tuned)
    return calls


def spent(mlcl: Mlcl, folder: Path, work: list[tuple[str, int]], *command: str) -> list[tuple[str, int]]:
    """What a command on a new workspace encodes and loads."""
    work.clear()
    assert mlcl(*command, "--set", f"workspace={folder}").code == 0
    return sorted(work)


@pytest.mark.parametrize("tuned", [False, True])
def test_a_sweep_encodes_and_loads_what_one_run_does(
    mlcl: Mlcl, tmp_path: Path, work: list[tuple[str, int]], tuned: bool
) -> None:
    world(tmp_path, "cirr", triplets=24)
    plain = PLAIN
    if tuned:
        mlcl("finetune", "--encoder", "text", "--epochs", "1", "--name", "tuned")
        plain = (*PLAIN, "--set", "clip.checkpoint=work/finetune/tuned/best.safetensors")
    one = spent(mlcl, tmp_path / "one", work, "train-combiner", *plain)
    assert [name for name, _ in one if name.startswith("load")] == ["load_clip", *(["load_tuned"] if tuned else [])]
    assert spent(mlcl, tmp_path / "many", work, "sweep", *plain, *GRID, "--seeds", "0-1") == one
    assert len(list((tmp_path / "many/combiner").glob("*/run.json"))) == 8


def test_augmented_views_are_encoded_once_per_seed(mlcl: Mlcl, tmp_path: Path, work: list[tuple[str, int]]) -> None:
    world(tmp_path, "cirr", triplets=24)
    views = ("--set", "combiner.augmented_views=2")
    without = spent(mlcl, tmp_path / "none", work, "train-combiner", *PLAIN)
    one = spent(mlcl, tmp_path / "one", work, "train-combiner", *views)
    of_a_seed = [*one]
    for call in without:
        of_a_seed.remove(call)
    assert of_a_seed
    swept = spent(mlcl, tmp_path / "many", work, "sweep", *views, *GRID, "--seeds", "0-1")
    assert swept == sorted(without + 2 * of_a_seed)


def test_cells_equal_single_runs_bit_for_bit_and_are_not_repeated(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=24)
    command = ("sweep", "--set", "combiner.levels=[sum,cat,hybrid]|[hybrid]", "--seeds", "3,1", "--json")
    first = mlcl(*command).json
    rows = first["tables"][0]["rows"]
    assert [row["setting"]["combiner.levels"] for row in rows] == ["[sum,cat,hybrid]", "[hybrid]"]
    for row in rows:
        for seed, run in zip((3, 1), row["runs"], strict=True):
            settings = [f"combiner.levels={row['setting']['combiner.levels']}", f"seed={seed}", "workspace=alone"]
            single = mlcl("train-combiner", "--json", *(part for text in settings for part in ("--set", text))).json
            assert fingerprints(run) == fingerprints(single["run"])
            swept = [row["metrics"]["recall@10"]["values"][(3, 1).index(seed)]]
            assert swept == [single["metrics"]["recall@10"]]

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "work/combiner").rglob("*.safetensors")}
    again = mlcl(*command).json
    assert again["tables"] == first["tables"]
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "work/combiner").rglob("*.safetensors")}
    more = mlcl(*command[:4], "1,3,2", "--json").json  # one more seed: two more runs
    assert len(list((tmp_path / "work/combiner").glob("*/run.json"))) == 6
    assert more["tables"][0]["rows"][0]["runs"][1] == rows[0]["runs"][0]


@pytest.mark.parametrize("encoder", ["text", "both"])
def test_fine_tuning_loads_the_untuned_weights_once(
    mlcl: Mlcl, tmp_path: Path, work: list[tuple[str, int]], encoder: str
) -> None:
    world(tmp_path, "cirr", triplets=24)
    rates = ("--set", "finetune.learning_rate=1.0e-3|1.0e-4", "--set", f"finetune.encoder={encoder}")
    swept = mlcl("sweep", "--stage", "finetune", *rates, "--seeds", "0-1", "--json").json
    assert [name for name, _ in work if name.startswith("load")] == ["load_clip"]
    for row in swept["tables"][0]["rows"]:
        rate = row["setting"]["finetune.learning_rate"]
        for seed, run in enumerate(row["runs"]):
            options = ("--encoder", encoder, "--from", "none", "--learning-rate", rate)
            alone = mlcl("finetune", *options, "--set", f"seed={seed}", "--set", "workspace=alone", "--json").json
            assert fingerprints(run) == fingerprints(alone["run"])
            assert row["metrics"]["recall@10"]["values"][seed] == pytest.approx(alone["metrics"]["recall@10"])


def test_figures_equal_those_added_up_by_hand(mlcl: Mlcl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the values of single queries, from the ranks that `evaluate` writes for each run."""
    world(tmp_path, "shoes", train=12, val=12, triplets=80)
    assert mlcl("prepare-shoes").code == 0
    rates = ("1.0e-3", "3.0e-2", "1.0e-1")
    files = ("--markdown", "table.markdown", "--latex", "table.tex", "--csv", "table.csv")
    setting = ("--set", "combiner.learning_rate=" + "|".join(rates), *PLAIN)
    table = mlcl("sweep", *setting, "--seeds", "0-2", "--json", *files).json["tables"][0]
    hits: dict[str, list[float]] = {}
    for row in table["rows"]:
        of_seeds = []
        for number, run in enumerate(row["runs"]):
            mlcl("evaluate", "--checkpoint", run, "--ranks", "ranks.csv")
            with (tmp_path / "ranks.csv").open() as file:
                ranks = [int(line["rank"] or 10**9) for line in csv.DictReader(file)]
            of_seeds.append([float(rank <= 1) for rank in ranks])
            assert row["metrics"]["recall@1"]["values"][number] == pytest.approx(100 * fmean(of_seeds[-1]))
        means = [100 * fmean(values) for values in of_seeds]
        assert row["metrics"]["recall@1"]["mean"] == pytest.approx(fmean(means))
        assert row["metrics"]["recall@1"]["sd"] == pytest.approx(stdev(means))
        hits[row["setting"]["combiner.learning_rate"]] = [fmean(values) for values in zip(*of_seeds, strict=True)]
    first, *others = table["rows"]
    assert first["differences"] is None
    found = [row["differences"]["recall@1"] for row in others]
    for row, difference in zip(others, found, strict=True):
        rate = row["setting"]["combiner.learning_rate"]
        assert difference["difference"] == pytest.approx(100 * (fmean(hits[rate]) - fmean(hits[rates[0]])))
        low, high = difference["interval"]
        assert low <= difference["difference"] <= high
    small, large = sorted(each["p"] for each in found)
    adjusted = sorted(each["adjusted"] for each in found)
    assert adjusted == pytest.approx([min(1, 2 * small), max(min(1, 2 * small), large)])

    with (tmp_path / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["combiner.learning_rate"] for line in lines] == list(rates)
    assert [float(line["recall@1 mean"]) for line in lines] == [r["metrics"]["recall@1"]["mean"] for r in table["rows"]]
    assert [line["recall@1 p"] for line in lines] == ["", *(str(each["adjusted"]) for each in found)]
    cell = "{mean:.2f} ± {sd:.2f}".format(**others[0]["metrics"]["recall@1"])
    assert cell in (tmp_path / "table.markdown").read_text()
    latex = (tmp_path / "table.tex").read_text()
    assert "\\begin{tabular}{lrrrr}" in latex
    assert "learning\\_rate & R@1 & R@10 & R@50 & recall mean \\\\" in latex
    assert latex.count("\\mathbf") >= 4
    shown = mlcl("sweep", *setting, "--seeds", "0-2").out
    assert cell in shown
    assert "3 seeds (0, 1, 2)" in shown
    monkeypatch.setenv("COLUMNS", "60")
    narrow = mlcl("sweep", *setting, "--seeds", "0-2").out
    assert "shows all 4 metrics" in narrow


def test_settings_on_other_queries_get_a_table_of_their_own(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "fashioniq", triplets=24)
    grid = (
        "--set",
        "combiner.sscl=[]",
        "--set",
        "evaluate.gallery=original|val",
        "--set",
        "combiner.levels=[cat]|[hybrid]",
    )
    tables = mlcl("sweep", *grid, "--json", "--markdown", "table.markdown").json["tables"]
    assert [table["protocol"] for table in tables] == ["fashioniq-original", "fashioniq-val"]
    for table in tables:
        assert len(table["rows"]) == 2
        for row in table["rows"]:
            assert [*row["metrics"]] == ["average/recall@10", "average/recall@50", "average/recall"]
            assert row["metrics"]["average/recall"]["sd"] is None
    assert (tmp_path / "table.markdown").read_text().count("| --- |") == 2


def test_too_few_queries_leave_out_the_differences_and_say_so(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=19)
    outcome = mlcl("sweep", *PLAIN, "--set", "combiner.levels=[cat]|[hybrid]", "--seeds", "0-1")
    assert outcome.code == 0
    assert outcome.err.count("too few") == 1
    assert "no differences are tested, since" in outcome.err
    assert "p (Holm)" not in outcome.out
    result = mlcl("sweep", *PLAIN, "--set", "combiner.levels=[cat]|[hybrid]", "--seeds", "0-1", "--json").json
    assert "19 queries" in result["tables"][0]["without_significance"]


WRONG = [
    (("combiner.levels=[cat]|[sum]", "combiner.epoch=3"), ["did you mean 'combiner.epochs'", "nothing to train"]),
    (("combiner.sscl=[high]|[mid]", "combiner.levels=[cat]|[cat,hybrid]"), ["none (with combiner.levels=[cat])"]),
    (("combiner.epochs=1|x|-2",), ["combiner.epochs=x: must be a positive integer", "combiner.epochs=-2: must be"]),
    (("combiner.epochs=1|1.0|01",), ["combiner.epochs=1.0: must be a positive integer"]),
    (("combiner.epochs=1|01",), ["two settings of this grid are the same: combiner.epochs=1 and combiner.epochs=01"]),
    (("combiner.epochs=1||2",), ["has an empty value"]),
    (("combiner.epochs=1|2", "combiner.epochs=3"), ["combiner.epochs is also set by another --set"]),
    (("seed=1|2",), ["use --seeds 1,2"]),
    (("combiner.batch_size=8|25|26",), ["25 is larger than the 24 training triplets", "26 is larger than"]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "messages"), WRONG, ids=[" ".join(settings) for settings, _ in WRONG])
def test_every_problem_is_reported_before_the_first_run(
    mlcl: Mlcl, tmp_path: Path, settings: tuple[str, ...], messages: list[str]
) -> None:
    world(tmp_path, "cirr", triplets=24)
    outcome = mlcl("sweep", *(part for setting in settings for part in ("--set", setting)))
    assert outcome.code == 2
    assert all(message in outcome.err for message in messages), outcome.err
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("seeds", ["", "x", "1-", "-1", "4-1", "1,1", "0-3,2", "1.5", "0-99999999999", "9" * 30])
def test_seeds_that_make_no_sense_are_refused(mlcl: Mlcl, tmp_path: Path, seeds: str) -> None:
    (tmp_path / "mlcl.yaml").write_text("dataset: cirr\n")
    outcome = mlcl("sweep", f"--seeds={seeds}")
    assert outcome.code == 2
    assert f"--seeds {seeds}" in outcome.err


def test_a_file_that_is_no_table_is_not_overwritten(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=24)
    (tmp_path / "notes.txt").write_text("mine")
    outcome = mlcl("sweep", "--markdown", "notes.txt")
    assert outcome.code == 2
    assert "already exists and is not a table written by mlcl" in outcome.err
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "work").exists()


def test_an_unfinished_run_continues(mlcl: Mlcl, tmp_path: Path) -> None:
    """As after a cut between two epochs: the run has a state, and no process trains it."""
    world(tmp_path, "cirr", triplets=24)
    command = ("sweep", *PLAIN, "--seeds", "0-1", "--set", "checkpoints.every_epochs=1", "--json")
    whole = mlcl(*command).json["tables"]
    (run, _) = sorted((tmp_path / "work/combiner").iterdir())
    summary = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**summary, "state": "running", "epoch": 1}))
    (run / "last.safetensors").unlink()  # the state of epoch 1 is left
    again = mlcl(*command)
    assert again.json["tables"] == whole
    assert "resuming at epoch 2" in again.err


def test_a_run_that_diverges_does_not_stop_the_others(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr", triplets=24)
    rate = ("--set", "combiner.learning_rate=1e38|1e-4")
    found = mlcl("sweep", *PLAIN, *rate, "--seeds", "0-1")
    assert found.code == 5
    assert "2 runs of 4 diverged (combiner.learning_rate=1e38, seed 0; combiner.learning_rate=1e38, s" in found.err
    states = [json.loads(path.read_text())["state"] for path in (tmp_path / "work/combiner").glob("*/run.json")]
    assert states.count("finished") == 2
    again = mlcl("sweep", *PLAIN, "--set", "combiner.learning_rate=1e-4", "--seeds", "0-1")
    assert again.code == 0
    assert again.err.count("Finished before") == 2
