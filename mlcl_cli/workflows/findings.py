"""What `mlcl check` found, and what that means for each command."""

import csv
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from mlcl_cli.atomic_files import require_replaceable, to_json, write_file
from mlcl_cli.data.datasets import DATASETS

Severity = Literal["error", "note"]
Verdict = Literal["ok", "would fail", "wrong figures"]
COLUMNS = ("check", "severity", "where", "what", "remedy", "commands")
# The splits that each command reads.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "finetune": ("train", "val"),
    "train-combiner": ("train", "val"),
    "evaluate": ("val",),
    "submit-cirr": ("test1",),
}
PREPARE = "prepare-shoes"
# An error of these checks does not stop a command: it makes its figures meaningless.
MISLEADING = ("names", "leakage", "content")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    An `error` makes the `commands` fail, or their figures wrong; a `note` is worth knowing. A note with `commands` says
    what they lack in a data set that is complete for others.
    """

    check: str
    severity: Severity
    where: str
    what: str
    remedy: str = ""
    commands: tuple[str, ...] = ()


@dataclass
class CheckResult:
    """What was looked at, by check, and what was found.

    `splits` are the splits to look at, `asked` says that the user named them. `prepares` says that `prepare-shoes` has
    to come first.
    """

    dataset: str
    splits: Collection[str]
    asked: bool = False
    prepares: bool = False
    looked: dict[str, str] = field(default_factory=dict)
    _found: dict[tuple[str, str, str], Finding] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """In the order in which they were found."""
        return list(self._found.values())

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """What each command would do. Commands that need a split that was not looked at are left out, unless they fail.

        `prepare-shoes` is there only where the prepared files are not.
        """
        verdicts: dict[str, Verdict] = {}
        for command in ([PREPARE] if self.prepares else []) + self.needing():
            checks = {finding.check for finding in self.findings if command in finding.commands}
            if checks - {*MISLEADING}:
                verdicts[command] = "would fail"
            elif checks:
                verdicts[command] = "wrong figures"
            elif set(NEEDS.get(command, ())) <= set(self.splits):
                verdicts[command] = "ok"
        return verdicts

    def needing(self, splits: Iterable[str] | None = None) -> list[str]:
        """The data set's commands that read any of `splits`; by default all of them."""
        known, asked = set(DATASETS[self.dataset].splits), None if splits is None else set(splits)
        offered = {command: needed for command, needed in NEEDS.items() if known.issuperset(needed)}
        return [command for command, needed in offered.items() if asked is None or asked & {*needed}]

    def as_json(self) -> dict[str, Any]:
        """One plain object."""
        findings = [asdict(finding) | {"commands": list(finding.commands)} for finding in self.findings]
        verdict = "sound" if self.sound else "a run would fail"
        told = {"verdict": verdict, "verdicts": self.verdicts, "looked_at": self.looked, "findings": findings}
        return {"command": "check", "dataset": self.dataset, **told}

    def add(
        self,
        check: str,
        severity: Severity,
        where: object,
        what: str,
        remedy: str | None = None,
        commands: Iterable[str] = (),
    ) -> None:
        """Adds a finding; one that is there already gains the commands and the graver severity."""
        key = check, str(where), what
        old = self._found.get(key, Finding(check, severity, str(where), what, remedy or ""))
        worse: Severity = "error" if "error" in (old.severity, severity) else "note"
        merged = tuple(dict.fromkeys([*old.commands, *commands]))
        self._found[key] = replace(old, severity=worse, commands=merged)


def require_writable(path: Path) -> None:
    """Raises UsageError where findings would replace a file that holds something else."""
    require_replaceable(
        path, ",".join(COLUMNS[:4]) if path.suffix.lower() == ".csv" else '"command": "check"', "findings"
    )


def write_findings(result: CheckResult, path: Path) -> None:
    """Writes the findings as CSV where the file's name ends so, else as JSON."""
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(found) | {"commands": " ".join(found.commands)} for found in result.findings)
        write_file(path, text.getvalue().encode())
    else:
        write_file(path, to_json(result.as_json(), indent=2))
