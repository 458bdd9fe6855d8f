"""What `mlcl finetune` and `mlcl train-combiner` return."""

from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.runs.summary import BestCheckpoint
from mlcl_cli.workflows.provenance import Circumstances


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """The run that a training command leaves, and its best epoch."""

    command: str
    dataset: str
    protocol: str
    run: Path
    epochs: int
    best: BestCheckpoint
    seconds: float
    circumstances: Circumstances

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints (README, "The five commands"; metrics: METHOD.md, Section 8.4)."""
        checkpoint = str(self.run / self.best.checkpoint)
        return {
            "command": self.command,
            "dataset": self.dataset,
            "protocol": self.protocol,
            "run": str(self.run),
            "epochs": self.epochs,
            "best": {"epoch": self.best.epoch, "score": self.best.score, "checkpoint": checkpoint},
            **self.circumstances.as_json(),
            "metrics": dict(self.best.metrics),
            "seconds": self.seconds,
        }
