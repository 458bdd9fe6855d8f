"""Cuts real commands at random moments, resumes them, and compares with runs that nobody cut.

`make torture` runs it at length: python tests/training/torture.py CUTS. Commands run in forked copies of this process,
which has imported everything already, so that most of the time goes into what is tortured.
"""

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from forked import SIGNALS, finished, start, wait

EVERY = ("--set", "checkpoints.every_epochs=1")
COMMANDS = {
    "banked": ("train-combiner", "--epochs", "12", "--set", "combiner.augmented_views=2", *EVERY),
    "fresh": ("train-combiner", "--epochs", "5", *EVERY),
    "text": ("finetune", "--encoder", "text", "--epochs", "4", *EVERY),
    "image": ("finetune", "--encoder", "image", "--epochs", "3", *EVERY),
}
STAGE = {"train-combiner": "combiner", "finetune": "finetune"}


def finished_runs(folder: Path, stage: str) -> list[Path]:
    summaries = (folder / "work" / stage).glob("*/run.json")
    return [path.parent for path in summaries if json.loads(path.read_text())["state"] == "finished"]


def contents(folder: Path, stage: str) -> dict[str, object]:
    """What the finished run holds: logs byte for byte, weights by fingerprint, bests."""
    from mlcl_cli.runs.checkpoints import load_checkpoint

    (run,) = finished_runs(folder, stage)
    files = ("best.safetensors", "last.safetensors")
    weights = {name: load_checkpoint(run / name).about.fingerprint for name in files}
    logs = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "metrics.csv")}
    return {**weights, **logs, "bests": json.loads((run / "run.json").read_text())["bests"]}


def resumable(folder: Path, stage: str) -> bool:
    from mlcl_cli.runs.listing import list_runs

    return any(run.resumable for run in list_runs(folder / "work") if run.stage == stage)


def torment(template: Path, name: str, draw: random.Random, seconds: float, cuts: int) -> tuple[Path, Counter[str]]:
    """Runs a command to its end through `cuts` cuts at random moments; counts those that met it alive, by signal."""
    folder = Path(tempfile.mkdtemp(prefix=f"torture-{name}-"))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    command, met = COMMANDS[name], Counter[str]()
    stage = STAGE[command[0]]
    for _ in range(10 * cuts + 10):
        again = (*command, "--resume") if resumable(folder, stage) else command
        child = start(folder, again)
        if met.total() >= cuts:
            code = wait(child)
        else:
            time.sleep(draw.uniform(0, seconds))
            chosen = draw.choice(SIGNALS)
            code = finished(child)
            if code is None:
                os.kill(child, chosen)
                code = wait(child)
                met[chosen.name] += code != 0  # else it had just come to its end
                allowed = {-signal.SIGKILL, 0} if chosen is signal.SIGKILL else {75, 0}
                assert code in allowed, f"{name}: {chosen.name} gave {code}\n{(folder / 'log').read_text()[-3000:]}"
                if code != 0 and not finished_runs(folder, stage):
                    continue
                return folder, met
        assert code == 0, f"{name}: exit code {code}\n{(folder / 'log').read_text()[-3000:]}"
        return folder, met
    raise AssertionError(f"{name} never came to its end")


def torture(cuts: int, seed: int = 0, report: bool = False) -> Counter[str]:
    """At least `cuts` cuts over all commands. Raises AssertionError at the first difference or wrong exit code."""
    import kornia  # noqa: F401  # imported once, here, and not in every fork
    import torch
    from world import world

    import mlcl_cli.workflows.train  # noqa: F401
    from mlcl_cli.models.weights import import_clip

    torch.set_num_threads(1)
    import_clip()
    draw, total = random.Random(seed), Counter[str]()
    template = world(Path(tempfile.mkdtemp(prefix="torture-")), "cirr", triplets=30)
    references: dict[str, tuple[dict[str, object], float]] = {}
    folders = [template]
    try:
        while total.total() < cuts:
            for name, command in COMMANDS.items():
                stage = STAGE[command[0]]
                if name not in references:
                    whole = Path(tempfile.mkdtemp(prefix="torture-whole-"))
                    folders.append(whole)
                    shutil.copytree(template, whole, dirs_exist_ok=True)
                    began = time.monotonic()
                    assert wait(start(whole, command)) == 0, (whole / "log").read_text()[-3000:]
                    references[name] = contents(whole, stage), time.monotonic() - began
                expected, seconds = references[name]
                folder, met = torment(template, name, draw, seconds, draw.randint(1, 4))
                folders.append(folder)
                found = contents(folder, stage)
                differing = [key for key in found if found[key] != expected[key]]
                assert not differing, f"{name} differs in {differing}: {folder}"
                total += met
                shutil.rmtree(folder)
                if report:
                    print(f"{name}: {dict(met)}; {total.total()} of {cuts}", flush=True)
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    return total


if __name__ == "__main__":
    print(torture(int(sys.argv[1]) if len(sys.argv) > 1 else 200, seed=int(time.time()), report=True))
