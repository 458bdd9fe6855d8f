"""Trains combiners on triplets generated from the demo's product table, and evaluates them on annotated queries.

`make generated` runs it: python tests/catalog/generated.py DEMO [--seeds N] [--epochs N]. DEMO is the folder of
`mlcl demo`. Only products.csv and captions.yaml are trained on; the annotated validation queries choose the best epoch,
as in every run, and are what the table shows.
"""

import argparse
import contextlib
import csv
import io
import json
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev

METRICS = {"recall@1": "R@1", "recall@10": "R@10", "recall@50": "R@50", "recall_mean": "mean"}
ATTRIBUTES = "style,color,sole,heel,trim"
RULES = ("--changes", "2", "--per-product", "8", "--val-fraction", "0")
BASELINES = {"element-wise sum": "sum", "image only": "image", "text only": "text"}

Metrics = dict[str, float]


def mlcl(*command: str | Path) -> dict[str, object]:
    """What `mlcl COMMAND --json` prints."""
    from mlcl_cli.cli.app import app

    out, messages = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(messages):
        code = app([*map(str, command), "--quiet", "--json"], standalone_mode=False)
    assert not code, f"mlcl {' '.join(map(str, command))}\n{messages.getvalue()}"
    result: dict[str, object] = json.loads(out.getvalue())
    return result


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make_triplets(shoes: Path, output: Path, seed: int) -> None:
    """Generated triplets to train on, then the annotated validation queries, in one table.

    Raises AssertionError if a generated triplet names an image that is not a training product.
    """
    templates = ("--templates", shoes / "captions.yaml")
    options = ("--attributes", ATTRIBUTES, *RULES, *templates, "--seed", str(seed), "-o", output)
    mlcl("make-triplets", shoes / "products.csv", *options)
    generated, products = rows(output), {row["image"] for row in rows(shoes / "products.csv")}
    assert {row["split"] for row in generated} == {"train"}
    assert {row[key] for row in generated for key in ("reference", "target")} <= products
    assert not products & {row["image"] for row in rows(shoes / "gallery.csv")}
    with output.open("a", encoding="utf-8") as file:
        file.writelines((shoes / "queries.csv").read_text(encoding="utf-8").splitlines(keepends=True)[1:])


def train(options: tuple[str | Path, ...], epochs: int | None) -> Metrics:
    """The metrics of a new combiner, trained on CLIP as the demo trained it."""
    limit = () if epochs is None else ("--epochs", str(epochs))
    best = mlcl("train-combiner", *options, *limit)["best"]
    assert isinstance(best, dict)
    return evaluate(*options, "--checkpoint", best["checkpoint"])


def evaluate(*options: str | Path) -> Metrics:
    metrics = mlcl("evaluate", *options)["metrics"]
    assert isinstance(metrics, dict)
    return {name: metrics[name] for name in METRICS}


def experiment(demo: Path, folder: Path, seeds: int, epochs: int | None) -> dict[str, list[Metrics]]:
    """The metrics of each kind of query by seed. All are on the demo's shoes, their CLIP, and the same recipe."""
    shoes, results = demo / "data" / "shoes", dict[str, list[Metrics]]()
    for seed in range(seeds):
        own = ("--set", f"workspace={folder}", "--set", f"seed={seed}", "--set", "clip.checkpoint=none")
        triplets = folder / f"triplets-{seed}.csv"
        make_triplets(shoes, triplets, seed)
        generated = ("--profile", shoes / "mlcl.yaml", *own, "--set", f"datasets.catalog.triplets={triplets}")
        results.setdefault("combiner, generated triplets", []).append(train(generated, epochs))
        for label, function in BASELINES.items() if seed == 0 else ():  # which no seed changes
            results[label] = [evaluate(*generated, "--combining-function", function)]
        annotated = ("--profile", demo / "mlcl.shoes.yaml", *own)
        results.setdefault("combiner, annotated triplets", []).append(train(annotated, epochs))
        last = ", ".join(f"{label} {values[-1]['recall_mean']:.1f}" for label, values in results.items())
        print(f"seed {seed}: {last}", file=sys.stderr, flush=True)
    return results


def table(results: dict[str, list[Metrics]]) -> str:
    """Mean and standard deviation over the seeds, in percent; the sum, image and text have nothing to train."""

    def cell(values: list[float]) -> str:
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")

    lines = [["", *METRICS.values()], ["---"] * (1 + len(METRICS))]
    lines += [[label, *(cell([run[name] for run in runs]) for name in METRICS)] for label, runs in results.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("demo", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        print(table(experiment(arguments.demo.resolve(), Path(temporary), arguments.seeds, arguments.epochs)))
