"""Cuts a sweep at random moments, takes it up again, and compares its table with that of a sweep that nobody cut.

At length: python tests/training/sweep_torture.py CUTS. Commands run in forked copies of this process, as in torture.py.
"""

import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from forked import SIGNALS, finished, start, wait

COMMAND = (
    *("sweep", "--set", "combiner.levels=[sum,cat,hybrid]|[hybrid]", "--set", "combiner.sscl=[mid,high]|[]"),
    *("--set", "combiner.augmented_views=2", "--set", "combiner.epochs=6", "--set", "checkpoints.every_epochs=1"),
    *("--seeds", "0-1", "--csv", "table.csv", "--markdown", "table.markdown"),
)
TABLES = ("table.csv", "table.markdown")


def torture(cuts: int, seed: int = 0) -> Counter[str]:
    """At least `cuts` cuts of one sweep, by signal. Raises AssertionError where its table differs in any digit."""
    import kornia  # noqa: F401  # imported once, here, and not in every fork
    import torch
    from world import world

    import mlcl_cli.workflows.sweep  # noqa: F401
    from mlcl_cli.models.weights import import_clip

    torch.set_num_threads(1)
    import_clip()
    draw, met = random.Random(seed), Counter[str]()
    whole, cut = (world(Path(tempfile.mkdtemp(prefix="torture-sweep-")), "cirr", triplets=30) for _ in range(2))
    try:
        began = time.monotonic()
        assert wait(start(whole, COMMAND)) == 0, (whole / "log").read_text()[-3000:]
        # A cut comes after a few runs at most, so that there are runs left for all cuts.
        seconds = 4 * (time.monotonic() - began) / cuts
        while met.total() < cuts:
            child = start(cut, COMMAND)
            time.sleep(draw.uniform(0, seconds))
            chosen, code = draw.choice(SIGNALS), finished(child)
            if code is None:
                os.kill(child, chosen)
                code = wait(child)
                met[chosen.name] += code != 0
            assert code in {-9, 75, 0}, (cut / "log").read_text()[-3000:]
            if code == 0:  # it came to its end: begin again
                assert [(cut / name).read_bytes() for name in TABLES] == [
                    (whole / name).read_bytes() for name in TABLES
                ]
                shutil.rmtree(cut / "work")
        assert wait(start(cut, COMMAND)) == 0, (cut / "log").read_text()[-3000:]
        for name in TABLES:
            assert (cut / name).read_bytes() == (whole / name).read_bytes(), (cut / "log").read_text()[-3000:]
    finally:
        for folder in (whole, cut):
            shutil.rmtree(folder, ignore_errors=True)
    return met


if __name__ == "__main__":
    print(torture(int(sys.argv[1]) if len(sys.argv) > 1 else 50, seed=int(time.time())), flush=True)
