"""How OpenMP's threads wait for one another. OpenMP reads this once, so it is chosen before torch is imported.

A thread that waits spins: waking it costs more than the wait. Where other programs take processors, one of the threads
is displaced now and then, and the others spin through whole time slices until it is back.
"""

import time
from collections.abc import MutableMapping
from pathlib import Path

# About a millisecond, a seventh of the default: at most 5 % slower on processors of one's own.
SPINNING = {"GOMP_SPINCOUNT": "20000"}
SLEEPING = {"OMP_WAIT_POLICY": "PASSIVE"}
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
LOAD = Path("/proc/loadavg")
LOOKS, SECONDS_BETWEEN_LOOKS = 25, 0.01


def set_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Lets threads sleep at once if other programs are busy, and spin for a while if not; a user's choice stays."""
    if not any(name in environment for name in CHOICES):
        environment.update(SLEEPING if others_are_busy() else SPINNING)


def others_are_busy() -> bool:
    """Whether something else wants a processor in every one of a few looks; False where Linux does not say.

    One look without ends it: a program that merely starts beside this one, as in a pipe, is done by then.
    """
    for _ in range(LOOKS):
        try:
            runnable = int(LOAD.read_text("ascii").split()[3].split("/")[0])  # "0.20 0.18 0.12 2/80 11206"
        except (OSError, ValueError, IndexError):
            return False
        if runnable <= 1:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True
