"""Rows of training on processors that are shared with other programs."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from mlcl_cli.bench.measure import Row, Timing
from mlcl_cli.bench.synthetic_data import SMALLEST, SyntheticData
from mlcl_cli.openmp import VARIABLES, set_wait_policy

OTHERS = (0, 1, 2)
STEPS = 100


def shared_processors(material: SyntheticData, repeats: int) -> Iterator[Row]:
    """Combiner steps beside no, one and two busy programs: our wait policy, and OpenMP's own. For a CPU alone."""
    if material.machine.compute.device.type != "cpu":
        return
    smallest = material.sizes is SMALLEST
    steps = 5 if smallest else STEPS
    untouched = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    for others in OTHERS[:1] if smallest else OTHERS:
        ours, plain = list[tuple[float, float]](), list[tuple[float, float]]()
        with ExitStack() as busy:
            for _ in range(others):
                busy.enter_context(_busy_program())
            for _ in range(repeats):
                chosen = dict(untouched)
                set_wait_policy(chosen)
                ours.append(_steps(steps, chosen))
                plain.append(_steps(steps, untouched))
        mine, theirs = (Timing(tuple(seconds for seconds, _ in runs), None) for runs in (ours, plain))
        losses = {loss for _, loss in (*ours, *plain)}
        problem = None if len(losses) == 1 else f"losses are {sorted(losses)}"
        name = f"combiner steps beside {others} busy program{'' if others == 1 else 's'}"
        yield Row(name, "step", (steps, steps), mine, theirs, problem)


def _steps(steps: int, environment: Mapping[str, str]) -> tuple[float, float]:
    command = [sys.executable, "-m", "mlcl_cli.bench.combiner_steps", str(steps)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, loss = done.stdout.split()
    return float(seconds), float(loss)


@contextmanager
def _busy_program() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


ROWS: tuple[Callable[[SyntheticData, int], Iterator[Row]], ...] = (shared_processors,)
