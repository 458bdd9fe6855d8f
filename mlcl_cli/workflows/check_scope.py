"""What `mlcl check` looks at: a profile, its data set's splits, and the commands that read them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.definition import DataSet, Preparation
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.progress import Progress

# The splits that each command reads, on every data set that has them.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "finetune": ("train", "val"),
    "train-combiner": ("train", "val"),
    "evaluate": ("val",),
}


@dataclass(frozen=True)
class Scope:
    """The splits to look at; `named` says that the user named them, so that a missing one is an error."""

    profile: Profile
    splits: tuple[str, ...]
    named: bool
    progress: Progress

    @property
    def dataset(self) -> DataSet:
        """The profile's data set."""
        return DATASETS[self.profile.dataset]

    @property
    def workers(self) -> int:
        """Threads that read images."""
        return choose_workers(self.profile.workers)

    @cached_property
    def reads(self) -> Mapping[str, tuple[str, ...]]:
        """The data set's commands, and the splits that each reads."""
        submission = self.dataset.submission
        known = {**COMMANDS, **({submission.command: (submission.split,)} if submission else {})}
        return {command: splits for command, splits in known.items() if {*splits} <= {*self.dataset.splits}}

    @cached_property
    def preparation(self) -> Preparation | None:
        """The preparation that has to come first: there is none, or its files are complete, where it is None."""
        preparation = self.dataset.preparation
        missing = preparation and not all((self.profile.root / file).exists() for file in preparation.files)
        return preparation if missing else None

    @property
    def commands(self) -> tuple[str, ...]:
        """All commands that read the data set."""
        return tuple(self.reads)

    def readers(self, *splits: str) -> tuple[str, ...]:
        """The commands that read any of `splits`."""
        return tuple(command for command, read in self.reads.items() if {*splits} & {*read})

    def droppers(self, *splits: str) -> tuple[str, ...]:
        """The readers of `splits` that `bad_images: drop` helps; a submission has to answer every query."""
        submission = self.dataset.submission
        return tuple(name for name in self.readers(*splits) if submission is None or name != submission.command)

    def is_needed(self, split: str) -> bool:
        """Whether the split must not be missing entirely: no data set is of use without a validation split."""
        return bool(self.readers(split)) and (self.named or split == "val")
