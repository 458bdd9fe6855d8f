"""What `mlcl finetune` and `mlcl train-combiner` leave."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcl_cli.runs.summary import BestCheckpoint
from mlcl_cli.workflows.run_context import Circumstances


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training command leaves."""

    command: str
    dataset: str
    protocol: str
    run: Path
    epochs: int
    best: BestCheckpoint
    seconds: float
    circumstances: Circumstances

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints (README, "The five commands"; metrics: METHOD.md, Section 8.4)."""
        checkpoint = str(self.run / self.best.checkpoint)
        best = {"epoch": self.best.epoch, "score": self.best.score, "checkpoint": checkpoint}
        return {
            "command": self.command,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "run": str(self.run),
            "epochs": self.epochs,
            "best": best,
            **self.circumstances.as_json(),
            "metrics": dict(self.best.metrics),
            "seconds": self.seconds,
        }
