"""`schedule: cosine_restarts` restarts every ten epochs and is stepped with the fractional epoch, like the original."""

import os
import signal
from pathlib import Path

import pytest
import torch
from world import world

from mlcl_cli.config import Profile, load_profile
from mlcl_cli.progress import NoProgress
from mlcl_cli.signals import Interrupted, interruptible
from mlcl_cli.training.loop import Trainer
from mlcl_cli.workflows.resume import Resume
from mlcl_cli.workflows.stages import COMBINER
from mlcl_cli.workflows.train import train

RATE, EPOCHS, TRIPLETS = 1e-3, 3, 16


def expected_rates(steps: int) -> list[float]:
    """The rate of each step if torch's scheduler is called the way the original calls it."""
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=10, eta_min=1e-6)
    rates = []
    for epoch in range(EPOCHS):
        for step in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step(epoch + step / steps)
    return rates


@pytest.fixture
def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rate of each step that is taken."""
    rates: list[float] = []
    real = Trainer._step

    def step(self: Trainer, batch: object) -> None:
        rates.append(self.optimizer.param_groups[0]["lr"])
        real(self, batch)

    monkeypatch.setattr(Trainer, "_step", step)
    return rates


def profile_of(folder: Path, steps: int) -> Profile:
    world(folder, "cirr", triplets=TRIPLETS)
    combiner = {"schedule": "cosine_restarts", "sscl": "[]", "epochs": EPOCHS, "batch_size": TRIPLETS // steps}
    return load_profile(folder / "mlcl.yaml", [f"combiner.{key}={value}" for key, value in combiner.items()])


@pytest.mark.parametrize("steps", [4, 8])
def test_rates_equal_those_of_the_original(tmp_path: Path, rates: list[float], steps: int) -> None:
    train(profile_of(tmp_path, steps), NoProgress(), COMBINER)
    assert rates == expected_rates(steps)


def test_resume_within_an_epoch_keeps_the_rates(
    tmp_path: Path, rates: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, real = profile_of(tmp_path, 4), Trainer._step

    def step(self: Trainer, batch: object) -> None:
        if len(rates) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        real(self, batch)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_step", step)
        with pytest.raises(Interrupted), interruptible():
            train(profile, NoProgress(), COMBINER)
    assert len(rates) == 6
    train(profile, NoProgress(), COMBINER, resume=Resume.NEWEST)
    assert rates == expected_rates(4)
