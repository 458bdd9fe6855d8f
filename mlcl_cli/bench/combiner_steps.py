"""Training steps of a small combiner in a process of their own: `python -m mlcl_cli.bench.combiner_steps STEPS`.

Prints the seconds that the steps took, and the last loss. What the process inherits decides how its threads wait.
"""

import sys
import time

import torch

from mlcl_cli.models.combiner import Architecture, Combiner
from mlcl_cli.models.losses import combiner_logits, combiner_losses
from mlcl_cli.training.objectives import combiner_optimizer

BATCH = 128
ARCHITECTURE = Architecture(feature_dim=64, projection_dim=256, hidden_dim=512)
WARM_UP = 10


def main() -> None:
    """Trains on random features."""
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    combiner = Combiner(ARCHITECTURE)
    optimizer = combiner_optimizer(combiner, 1e-4)
    text, image, augmented, target = (torch.randn(BATCH, ARCHITECTURE.feature_dim) for _ in range(4))
    began, loss = time.perf_counter(), torch.zeros(())
    for step in range(WARM_UP + int(sys.argv[1])):
        if step == WARM_UP:
            began = time.perf_counter()
        output = combiner(text, torch.stack([image, augmented]))
        terms = combiner_losses(combiner, combiner_logits(combiner, output, target))
        loss = torch.stack([term.squeeze() for term in terms.values()]).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    sys.stdout.write(f"{time.perf_counter() - began} {float(loss)}\n")


if __name__ == "__main__":
    main()
