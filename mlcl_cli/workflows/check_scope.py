"""What `mlcl check` looks at: a profile, its data set's splits, and the commands that read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.definition import DataSet, Preparation
from mlcl_cli.progress import Progress

# The splits that each command reads, on every data set that has them.
COMMANDS = {"finetune": ("train", "val"), "train-combiner": ("train", "val"), "evaluate": ("val",)}


@dataclass(frozen=True)
class Scope:
    """The splits to look at; `named` says that the user named them, so that a missing one is an error."""

    profile: Profile
    splits: Sequence[str]
    named: bool
    progress: Progress

    @property
    def dataset(self) -> DataSet:
        """The profile's data set."""
        return DATASETS[self.profile.dataset]

    @cached_property
    def reads(self) -> Mapping[str, Sequence[str]]:
        """The data set's commands, and the splits that each reads."""
        submission = self.dataset.submission
        known = COMMANDS | ({submission.command: (submission.split,)} if submission else {})
        return {command: splits for command, splits in known.items() if {*splits} <= {*self.dataset.splits}}

    @cached_property
    def preparation(self) -> Preparation | None:
        """The data set's preparation, unless its files are there already."""
        preparation, root = self.dataset.preparation, self.profile.root
        done = preparation is None or all((root / file).exists() for file in preparation.files)
        return None if done else preparation

    @property
    def submission(self) -> str | None:
        """The command that has to answer every query, whatever `bad_images` says."""
        return self.dataset.submission.command if self.dataset.submission else None

    def readers(self, *splits: str) -> list[str]:
        """The commands that read any of `splits`."""
        return [command for command, read in self.reads.items() if {*splits} & {*read}]
