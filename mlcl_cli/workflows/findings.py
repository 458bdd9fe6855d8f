"""What `mlcl check` looks at and finds, and what that means for each command."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

from mlcl_cli.atomic_files import require_replaceable, to_json, write_file
from mlcl_cli.config import Profile
from mlcl_cli.data.definition import DataSet, Preparation
from mlcl_cli.errors import MlclError, UsageError
from mlcl_cli.progress import Progress

# The splits that each command reads, on every data set that has them.
COMMANDS = {"finetune": ("train", "val"), "train-combiner": ("train", "val"), "evaluate": ("val",)}
# What a command would do.
Verdict: TypeAlias = Literal["ok", "would fail", "wrong figures"]
# An error in one of these checks does not stop a command, but makes its metrics meaningless.
MISLEADING = {"names", "leakage", "content"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect. An error makes `commands` fail, or their metrics wrong.

    A note with `commands` says what they lack in a data set that other commands can use.
    """

    check: str
    severity: Literal["error", "note"]
    where: str
    what: str
    remedy: str
    commands: tuple[str, ...]


COLUMNS = tuple(field.name for field in fields(Finding))


@dataclass
class CheckReport:
    """The `splits` of a profile's data set to look at, what each check looked at, and what was found.

    `splits_named` says that the user named the splits, so that a missing one is an error.
    """

    profile: Profile
    dataset: DataSet
    progress: Progress
    splits: Sequence[str]
    splits_named: bool
    looked_at: dict[str, str] = field(default_factory=dict)
    _findings: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    @cached_property
    def preparation(self) -> Preparation | None:
        """The data set's preparation, unless its files exist."""
        preparation = self.dataset.preparation
        done = preparation is None or all((self.profile.root / file).exists() for file in preparation.files)
        return None if done else preparation

    @cached_property
    def reads(self) -> Mapping[str, Sequence[str]]:
        """The data set's commands, and the splits that each reads."""
        submission = self.dataset.submission
        known = COMMANDS | ({submission.command: (submission.split,)} if submission else {})
        return {command: splits for command, splits in known.items() if {*splits} <= {*self.dataset.splits}}

    @property
    def submission(self) -> str | None:
        """The command that answers every query, whatever `bad_images` says."""
        return self.dataset.submission.command if self.dataset.submission else None

    def readers(self, *splits: str) -> list[str]:
        """The commands that read any of `splits`."""
        return [command for command, read in self.reads.items() if {*splits} & {*read}]

    def add(
        self,
        check: str,
        where: object,
        what: str,
        remedy: str | None = None,
        commands: Iterable[str] = (),
        *,
        is_error: bool = False,
    ) -> None:
        """Add a note or an error. A repeated one adds its commands to the first, and an error outweighs a note."""
        key = check, str(where), what
        finding = Finding(check, "error" if is_error else "note", str(where), what, remedy or "", tuple(commands))
        if earlier := self._findings.get(key):
            merged = tuple(dict.fromkeys([*earlier.commands, *finding.commands]))
            finding = replace(earlier, severity="error" if is_error else earlier.severity, commands=merged)
        self._findings[key] = finding

    def add_exception(self, check: str, error: MlclError, commands: Iterable[str], *, is_error: bool = True) -> None:
        """Add an exception as an error for `commands`, or as a note."""
        where = check if error.where is None else error.where
        self.add(check, where, error.what, error.remedy, commands, is_error=is_error)

    @property
    def findings(self) -> list[Finding]:
        """In the order in which they were found."""
        return list(self._findings.values())

    @property
    def is_sound(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "command": "check",
            "dataset": self.dataset.name,
            "verdict": "sound" if self.is_sound else "a run would fail",
            "verdicts": self.verdicts,
            "looked_at": self.looked_at,
            "findings": [asdict(finding) for finding in self.findings],
        }

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What each command would do; one that reads more than the checked splits is left out, unless it would fail."""
        verdicts: dict[str, Verdict] = {}
        reads = {self.preparation.command: (), **self.reads} if self.preparation else self.reads
        for command, read in reads.items():
            checks = {finding.check for finding in self.findings if command in finding.commands}
            if checks:
                verdicts[command] = "would fail" if checks - MISLEADING else "wrong figures"
            elif {*read} <= {*self.splits}:
                verdicts[command] = "ok"
        return verdicts

    def write(self, path: Path) -> None:
        """Write the findings, as CSV if the file's name ends in .csv, else as JSON."""
        if not _is_csv(path):
            write_file(path, to_json(self.as_json(), indent=2))
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(finding) | {"commands": " ".join(finding.commands)} for finding in self.findings)
        write_file(path, text.getvalue().encode())


def require_writable(path: Path) -> None:
    """Raise UsageError if findings would replace a file that holds something else, or its name has another ending."""
    if path.suffix.lower() not in (".json", ".csv", ""):  # /dev/stdout has no suffix
        raise UsageError("must end in .json or .csv", where=path, remedy="Choose another --output")
    require_replaceable(path, ",".join(COLUMNS[:4]) if _is_csv(path) else '"command": "check"', "findings")


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"
