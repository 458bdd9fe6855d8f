"""How OpenMP's threads wait for each other. OpenMP reads this once, so it is set before torch is imported.

A waiting thread spins, since waking it costs more than the wait. If other programs are busy, one of the threads loses
its processor at times, and the others spin through whole time slices until it is back.
"""

import time
from collections.abc import MutableMapping
from pathlib import Path

SPIN = {"GOMP_SPINCOUNT": "20000"}  # about 1 ms, a seventh of the default: at most 5 % slower on idle processors
SLEEP = {"OMP_WAIT_POLICY": "PASSIVE"}
VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LOAD = Path("/proc/loadavg")
SAMPLES, SECONDS_BETWEEN_SAMPLES = 25, 0.01


def set_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Let threads sleep at once if other programs are busy, else spin for a while. A user's own setting stays."""
    if not any(name in environment for name in VARIABLES):
        environment.update(SLEEP if others_are_busy() else SPIN)


def others_are_busy() -> bool:
    """Whether another thread wants a processor in every sample; False where Linux's load is not available.

    One idle sample decides: a program that only starts beside this one, as in a pipe, has finished by then.
    """
    for _ in range(SAMPLES):
        try:
            runnable = int(LOAD.read_text("ascii").split()[3].split("/")[0])  # "0.20 0.18 0.12 2/80 11206"
        except (OSError, ValueError, IndexError):
            return False
        if runnable <= 1:
            return False
        time.sleep(SECONDS_BETWEEN_SAMPLES)
    return True
