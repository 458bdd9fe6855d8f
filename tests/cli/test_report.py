"""`mlcl report` through the real command line: its figures are the run's, its ranks the evaluation's."""

import csv
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from command_line import Mlcl
from world import picture, world

from mlcl_cli.html_report.naming import without_places

Attributes = dict[str, str | None]


class Elements(HTMLParser):
    """Every element with its attributes, in order, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, Attributes]] = []
        self.text = ""
        self._texts: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.found:
            self._texts.append((self.found[-1][0], data.strip()))

    def texts(self, tag: str) -> list[str]:
        """The texts that follow directly on an element's beginning."""
        return [text for own, text in self._texts if own == tag and text]

    def having(self, name: str) -> list[Attributes]:
        return [attributes for _, attributes in self.found if name in attributes]


CAPTIONS = "data/cirr/captions/cap.rc2.val.json"


@pytest.fixture
def trained(mlcl: Mlcl, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A tuned CLIP and a combiner, of CIRR unless the test names another data set."""
    dataset = getattr(request, "param", "cirr")
    world(tmp_path, dataset, triplets=40)
    if dataset == "shoes":
        assert mlcl("prepare-shoes").code == 0
    assert mlcl("finetune", "--encoder", "text").code == 0
    assert mlcl("train-combiner").code == 0
    return tmp_path


def runs_of(folder: Path, stage: str) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"work/{stage}/*/run.json"))


def best_of(run: Path) -> Any:
    return next(iter(json.loads((run / "run.json").read_text())["bests"].values()))


def page_of(mlcl: Mlcl, *options: str) -> Elements:
    return Elements(Path(mlcl("report", *options, "--json").json["file"]).read_text())


@pytest.mark.parametrize("trained", ["fashioniq", "shoes", "cirr"], indirect=True)
def test_metrics_are_those_of_the_run_and_ranks_those_of_evaluate(mlcl: Mlcl, trained: Path) -> None:
    result = mlcl("report", "--json").json
    (run,) = runs_of(trained, "combiner")
    assert result["runs"] == [{"run": f"combiner/{run.name}", "sheet": True}]
    assert Path(result["file"]) == trained / f"work/reports/combiner-{run.name}.html"
    page = Elements(Path(result["file"]).read_text())
    metrics = best_of(run)["metrics"]
    shown = {one["data-metric"]: float(one["data-value"] or "") for one in page.having("data-metric")}
    assert shown.items() <= metrics.items()
    assert len(shown) >= 3
    for value in shown.values():
        assert f"{value:.2f}" in page.text
    assert "with the same results" in page.text
    require_ranks_of_evaluate(mlcl, trained, page)


def queries_of(page: Elements) -> Any:
    """The queries of a data set that the page's script searches."""
    return json.loads(page.texts("script")[0])


def require_ranks_of_evaluate(mlcl: Mlcl, folder: Path, page: Elements, *options: str) -> None:
    evaluated = mlcl("evaluate", "--ranks", "ranks.csv", *options, "--json").json
    rows = list(csv.DictReader((folder / "ranks.csv").read_text().splitlines()))
    queries = evaluated["queries"]
    assert len(rows) == (sum(queries.values()) if isinstance(queries, dict) else queries)
    cards = page.having("data-query")
    assert len(cards) > 5
    for card in cards:
        assert rows[int(card["data-query"] or "")]["rank"] == card["data-rank"]
    assert ["" if rank is None else str(rank) for rank in queries_of(page)["rank"]] == [row["rank"] for row in rows]
    ten = 100 * sum(int(row["rank"] or 10**9) <= 10 for row in rows) / len(rows)
    metrics = evaluated["metrics"]
    assert metrics.get("recall@10", metrics.get("average/recall@10")) == pytest.approx(ten)


def test_a_finetuning_run_queries_by_the_sum(mlcl: Mlcl, trained: Path) -> None:
    (run,) = runs_of(trained, "finetune")
    page = page_of(mlcl, f"{run.parent.name}/{run.name}")
    assert "text only" in page.text
    assert {"image only", "text only"} <= set(page.texts("th"))
    assert {"sum", "high level"}.isdisjoint(page.texts("th"))
    best = f"clip.checkpoint={run / best_of(run)['checkpoint']}"
    require_ranks_of_evaluate(mlcl, trained, page, "--combining-function", "sum", "--set", best)


def test_runs_are_compared_side_by_side(mlcl: Mlcl, trained: Path) -> None:
    assert mlcl("train-combiner", "--set", "seed=1").code == 0
    result = mlcl("report", "--all", "--json").json
    page = Elements(Path(result["file"]).read_text())
    for stage in ("finetune", "combiner"):
        for run in runs_of(trained, stage):
            metrics = best_of(run)["metrics"]
            own = [one for one in page.having("data-metric") if one["data-run"] == f"{stage}/{run.name}"]
            assert {one["data-metric"]: float(one["data-value"] or "") for one in own} == metrics
    assert page.text.count("targets rank higher") == 1, "runs that differ in the seed alone are not compared"
    counts = re.search(r"Of 40 targets, (\d+) rank higher, (\d+) lower, (\d+) the same", " ".join(page.text.split()))
    assert counts is not None
    assert sum(map(int, counts.groups())) == 40
    ids = [attributes["id"] for attributes in page.having("id")]
    assert len(ids) == len(set(ids)), "an identifier appears twice"
    known = set(ids)
    for name in ("aria-controls", "aria-labelledby", "aria-describedby"):
        assert {attributes[name] for attributes in page.having(name)} <= known
    assert {
        (attributes["href"] or "")[1:] for tag, attributes in page.found if tag == "use" and "href" in attributes
    } <= known


def test_runs_are_named_by_what_differs_and_seeds_are_summarized(mlcl: Mlcl, trained: Path) -> None:
    assert mlcl("train-combiner", "--set", "seed=1").code == 0
    assert mlcl("train-combiner", "--set", "combiner.levels=[cat]", "--set", "combiner.sscl=[]").code == 0
    page = page_of(mlcl, "--all")
    names = [text for text in page.texts("a") if text.startswith(("combiner", "fine-tuned"))]
    assert sorted(names) == [
        "combiner, levels mid, SSCL none, seed 0",
        "combiner, seed 0",
        "combiner, seed 1",
        "fine-tuned CLIP",
    ]
    assert "Where a name says nothing else, a combiner has levels low+mid+high, SSCL mid+high." in page.text
    scores = [best_of(run)["score"] for run in runs_of(trained, "combiner")[:2]]
    assert "combiner, 2 seeds" in page.texts("th")
    assert f"{fmean(scores):.2f}" in page.texts("td")
    assert f"± {stdev(scores):.2f}" in page.texts("small")


def test_names_and_notes_of_runs_are_shown(mlcl: Mlcl, trained: Path) -> None:
    note = f"half of <b>the rate, in {trained}/work"
    assert mlcl("train-combiner", "--name", "slow", "--note", note, "--set", "combiner.learning_rate=5.0e-4").code == 0
    page = page_of(mlcl, "--all")
    assert "slow (combiner, learning rate 0.0005)" in page.texts("a")
    assert "combiner, learning rate 0.001" in page.texts("a")
    shown = "half of <b>the rate, in work"
    assert shown in page.text
    assert note not in page.text
    alone = page_of(mlcl, "slow")
    assert "The run is called slow." in alone.text
    assert shown in alone.text


def test_a_combiner_without_the_low_level_is_still_compared_with_the_sum(mlcl: Mlcl, trained: Path) -> None:
    assert mlcl("train-combiner", "--set", "combiner.levels=[hybrid]", "--set", "combiner.sscl=[]").code == 0
    page = page_of(mlcl, f"combiner/{runs_of(trained, 'combiner')[1].name}")
    assert list(queries_of(page)["parts"]) == ["image only", "text only", "sum", "high level"]
    shown = mlcl("evaluate", "--combining-function", "sum", "--json").json["metrics"]["arithmetic_mean"]
    rows = dict(zip(page.texts("th")[2:7], page.texts("td")[:5], strict=True))
    assert list(rows) == ["Chance", "Image only", "Text only", "Sum of image and text", "Combiner"]
    assert rows["Sum of image and text"] == f"{shown:.1f}"


@pytest.mark.parametrize("trained", ["fashioniq", "shoes", "cirr"], indirect=True)
def test_the_page_names_no_place_of_this_machine(mlcl: Mlcl, trained: Path) -> None:
    assert mlcl("train-combiner").code == 0
    pages = [Path(mlcl("report", *options, "--json").json["file"]).read_text() for options in ((), ("--all",))]
    shutil.rmtree(trained / "data")
    pages.append(Path(mlcl("report", "--json").json["file"]).read_text())
    elsewhere = trained / "elsewhere"
    elsewhere.mkdir()
    outcome = mlcl("report", "--profile", "../mlcl.yaml", "--output", "page.html", folder=elsewhere)
    assert outcome.code == 0, outcome.err
    pages.append((elsewhere / "page.html").read_text())
    for page in pages:
        assert str(trained) not in page
        assert str(Path.home()) not in Elements(page).text
        assert not re.search(r"(?<![\w.…/~-])/(tmp|home|root|usr|var)/", Elements(page).text)


def own_data(folder: Path) -> Path:
    """A data set of one's own, whose queries have up to three targets."""
    world(folder, "cirr", triplets=40)
    for number in range(30):
        picture(folder / f"photos/{number:02}.png", number)
    rows = []
    for number in range(60):
        reference, *targets = ((number + 7 * step) % 30 for step in range(2 + number // 2 % 3))
        rows.append(
            {
                "reference": f"{reference:02}.png",
                "target": [f"{target:02}.png" for target in targets],
                "caption": f"make it {number}",
                "split": ("train", "val")[number % 2],
            }
        )
    (folder / "triplets.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text = (folder / "mlcl.yaml").read_text().replace("dataset: cirr\n", "dataset: mine\n", 1)
    tables = (
        "datasets:\n  mine:\n    images: photos\n    triplets: triplets.jsonl\n    protocol: {recall_at: [1, 10]}\n"
    )
    (folder / "mlcl.yaml").write_text(text.replace("roots:\n  cirr: data\n", tables))
    return folder


def test_any_of_several_targets_is_a_hit(mlcl: Mlcl, tmp_path: Path) -> None:
    own_data(tmp_path)
    outcome = mlcl("train-combiner")
    assert outcome.code == 0, outcome.err
    page = page_of(mlcl)
    assert "Chance" not in page.texts("th")
    assert "A target is among the first 10 images" in page.text
    queries = queries_of(page)
    assert max(map(len, queries["targets"])) > 1
    for rank, targets, top in zip(queries["rank"], queries["targets"], queries["top"], strict=True):
        places = [place for place, name in enumerate(top, 1) if name in targets]
        assert (rank <= 10) == bool(places)
        assert not places or rank == places[0]
    require_ranks_of_evaluate(mlcl, tmp_path, page)


def test_the_page_shows_how_the_run_was_made_and_its_commands_work(mlcl: Mlcl, trained: Path) -> None:
    for stage in ("finetune", "combiner"):
        (run,) = runs_of(trained, stage)
        page = page_of(mlcl, f"{run.parent.name}/{run.name}")
        summary = json.loads((run / "run.json").read_text())
        shown = without_places((run / "profile.yaml").read_text(), trained)
        assert shown.strip() in page.text
        assert summary["clip"]["fingerprint"] in page.text
        assert summary["versions"]["torch"] in page.text
        again, evaluate = (shlex.split(line)[1:] for line in page.texts("code") if line.startswith("mlcl "))
        assert mlcl(*evaluate, "--json").json["metrics"] == best_of(run)["metrics"]
        assert mlcl(*again, "--json").json["metrics"] == best_of(run)["metrics"]
        shutil.rmtree(max(runs_of(trained, stage)))


def test_a_run_without_its_data_is_shown_without_a_sheet_and_with_the_reason(mlcl: Mlcl, trained: Path) -> None:
    shutil.rmtree(trained / "data")
    outcome = mlcl("report", "--json")
    assert outcome.json["runs"][0]["sheet"] is False
    assert "warning: " in outcome.err
    page = Elements(Path(outcome.json["file"]).read_text())
    assert "There is no retrieval sheet: " in page.text
    assert page.having("data-metric")
    assert [attributes for tag, attributes in page.found if tag == "svg" and attributes.get("role") == "img"]


def test_a_missing_image_is_dropped_on_demand_and_the_page_says_that_figures_differ(mlcl: Mlcl, trained: Path) -> None:
    records = json.loads((trained / "data/cirr/captions/cap.rc2.val.json").read_text())
    (trained / f"data/dev/{records[0]['target_hard']}.png").unlink()
    assert mlcl("report", "--json").json["runs"][0]["sheet"] is False
    outcome = mlcl("report", "--set", "bad_images=drop", "--json")
    assert outcome.json["runs"][0]["sheet"] is True
    assert "1 bad image and" in outcome.err
    assert "results differ by up to" in Path(outcome.json["file"]).read_text()


def test_the_commands_on_the_page_work_after_the_folder_moved(mlcl: Mlcl, trained: Path) -> None:
    (run,) = runs_of(trained, "combiner")
    expected = best_of(run)["metrics"]
    moved = trained.rename(trained.with_name("moved"))
    outcome = mlcl("report", "--output", "page.html", folder=moved)
    assert outcome.code == 0, outcome.err
    texts = Elements((moved / "page.html").read_text()).texts("code")
    for line in (shlex.split(text)[1:] for text in texts if text.startswith("mlcl ")):
        assert mlcl(*line, "--json", folder=moved).json["metrics"] == expected
    assert not trained.exists(), "something was written to the old folder"


def test_a_damaged_run_does_not_block_the_others(mlcl: Mlcl, trained: Path) -> None:
    (good,) = runs_of(trained, "combiner")
    shutil.copytree(good, good.with_name("cirr-0"))
    (good.with_name("cirr-0") / "run.json").write_text("{")
    assert [run["state"] for run in mlcl("runs", "--json").json["runs"]] == ["damaged", "finished", "finished"]
    assert "damaged" in mlcl("runs").out
    assert mlcl("report", f"combiner/{good.name}").code == 0
    assert mlcl("report", "--all").code == 0
    refused = mlcl("report", "cirr-0")
    assert refused.code == 3
    assert "run.json: is not a valid run summary" in refused.err
    assert mlcl("runs", "show", str(good.with_name("cirr-0"))).code == 0
    assert mlcl("runs", "rm", "cirr-0", "--yes").code == 0


def test_evaluate_and_report_prefer_a_better_run_to_the_newest(mlcl: Mlcl, trained: Path) -> None:
    (first,) = runs_of(trained, "combiner")
    summary = json.loads((first / "run.json").read_text())
    for best in summary["bests"].values():
        best["score"] = 99.5
    (first / "run.json").write_text(json.dumps(summary))
    assert mlcl("train-combiner").code == 0
    assert f"combiner/{first.name}, best of 2, arithmetic_mean 99.50" in mlcl("evaluate").err
    report = mlcl("report", "--json")
    assert f"combiner/{first.name}, best of 2, arithmetic_mean 99.50" in report.err
    assert [run["run"] for run in report.json["runs"]] == [f"combiner/{first.name}"]


def test_a_failed_command_creates_no_workspace(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    shutil.rmtree(tmp_path / "data")
    assert mlcl("evaluate").code == 3
    assert not (tmp_path / "work").exists()


def test_a_run_named_twice_is_shown_once(mlcl: Mlcl, trained: Path) -> None:
    (run,) = runs_of(trained, "combiner")
    name = f"combiner/{run.name}"
    assert mlcl("report", name, name, "--json").json["runs"] == [{"run": name, "sheet": True}]


def test_a_difference_from_the_logged_metrics_is_shown(mlcl: Mlcl, trained: Path) -> None:
    (run,) = runs_of(trained, "combiner")
    summary = json.loads((run / "run.json").read_text())
    best_of_summary = next(iter(summary["bests"].values()))
    best_of_summary["metrics"]["recall@10"] += 1.5
    (run / "run.json").write_text(json.dumps(summary))
    assert "results differ by up to 1.50" in page_of(mlcl).text


def test_a_run_without_its_log_is_shown_without_curves(mlcl: Mlcl, trained: Path) -> None:
    (run,) = runs_of(trained, "combiner")
    (run / "metrics.jsonl").unlink()
    page = page_of(mlcl)
    assert page.having("data-query")
    assert page.having("data-lines") == []


@pytest.mark.parametrize(
    ("file", "content", "where"),
    [
        ("run.json", None, "run.json: is not a valid run summary (versions: missing)"),
        ("metrics.jsonl", "{}\nnonsense\n{}\n", "metrics.jsonl, line 2: is not a log written by mlcl"),
    ],
)
def test_a_damaged_run_given_by_name_is_an_error(
    mlcl: Mlcl, trained: Path, file: str, content: str | None, where: str
) -> None:
    (run,) = runs_of(trained, "combiner")
    summary = json.loads((run / "run.json").read_text())
    del summary["versions"]
    (run / file).write_text(json.dumps(summary) if content is None else content)
    outcome = mlcl("report", f"combiner/{run.name}")
    assert outcome.code == 3
    assert where in outcome.err
    assert not (trained / "work/reports").exists()


def test_captions_and_names_are_escaped(mlcl: Mlcl, trained: Path) -> None:
    path = trained / "data/cirr/captions/cap.rc2.val.json"
    records = json.loads(path.read_text())
    for record in records:
        record["caption"] = "<script>alert('x')</script> & <b>red</b>"
    path.write_text(json.dumps(records))
    page = page_of(mlcl)
    assert "<script>alert('x')</script> & <b>red</b>" in page.text
    assert [attributes.get("class") for tag, attributes in page.found if tag == "script"] == ["queries", None]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["report", "nothing"], "'nothing' matches no run"),
        (["report", "--all", "cirr"], "--all: cannot be combined with run names"),
        (["report", "--output", "thesis.html"], "thesis.html: already exists and is not a report written by mlcl"),
        (["report", "--set", "evaluate.gallery=val"], "--set evaluate.gallery=val: has no effect on a report"),
        (
            ["evaluate", "--ranks", "thesis.html"],
            "thesis.html: already exists and is not a table of ranks written by mlcl",
        ),
        (["evaluate", "--ranks", "data"], "data: is a folder"),
        (["check", "--output", CAPTIONS], f"{CAPTIONS}: already exists and is not findings written by mlcl"),
        (["check", "--output", "thesis.html"], "thesis.html: must end in .json or .csv"),
        (["evaluate", "--ranks", "ranks.txt"], "ranks.txt: must end in .csv"),
        (["report", "--output", "data"], "data: must end in .html"),
    ],
)
def test_wrong_usage_is_refused_and_overwrites_nothing(
    mlcl: Mlcl, trained: Path, command: list[str], message: str
) -> None:
    (trained / "thesis.html").write_text("<p>precious</p>")
    outcome = mlcl(*command)
    assert outcome.code == 2
    assert message in outcome.err
    assert (trained / "thesis.html").read_text() == "<p>precious</p>"


def test_a_workspace_without_runs_is_an_error(mlcl: Mlcl, tmp_path: Path) -> None:
    world(tmp_path, "cirr")
    outcome = mlcl("report")
    assert outcome.code == 2
    assert "there is no run with a validated epoch yet" in outcome.err


def test_a_report_overwrites_an_older_report(mlcl: Mlcl, trained: Path) -> None:
    for _ in range(2):
        assert mlcl("report", "--output", "page.html").code == 0
    assert (trained / "page.html").exists()
