"""How OpenMP's threads wait for one another. OpenMP reads this once, so it is set before torch is imported."""

from collections.abc import Mapping, MutableMapping

# A thread that waits for a displaced one gives its processor away instead of spinning through its own time slice.
WAITING: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE"}
CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def set_wait_policy(environment: MutableMapping[str, str]) -> None:
    """Puts `WAITING` into `environment`, unless the user has made a choice there."""
    if not any(name in environment for name in CHOICES):
        environment.update(WAITING)
