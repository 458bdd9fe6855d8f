"""What `mlcl check` finds, and what that means for each command."""

import csv
import io
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, TypeVar

from mlcl_cli.atomic_files import require_replaceable, to_json, write_file
from mlcl_cli.errors import MlclError

# An error of these checks does not stop a command: it makes its metrics meaningless.
MISLEADING = {"names", "leakage", "content"}


class Severity(StrEnum):
    """An error makes commands fail, or their metrics wrong; a note is worth knowing."""

    ERROR = "error"
    NOTE = "note"


class Verdict(StrEnum):
    """What a command would do."""

    OK = "ok"
    WOULD_FAIL = "would fail"
    WRONG_FIGURES = "wrong figures"


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect. A note with `commands` says what they lack in a data set that is complete for others."""

    check: str
    severity: Severity
    where: str
    what: str
    remedy: str = ""
    commands: tuple[str, ...] = ()


COLUMNS = tuple(field.name for field in fields(Finding))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a check looked at."""

    check: str
    summary: str


Result = TypeVar("Result")
# A check yields what it looked at and found; some return a result that later checks need.
Findings: TypeAlias = Generator[Finding | Looked, None, None]
FindingsAnd: TypeAlias = Generator[Finding | Looked, None, Result]


def error(check: str, where: object, what: str, remedy: str | None = None, commands: Iterable[str] = ()) -> Finding:
    """An error for `commands`."""
    return Finding(check, Severity.ERROR, str(where), what, remedy or "", tuple(commands))


def note(check: str, where: object, what: str, remedy: str | None = None, commands: Iterable[str] = ()) -> Finding:
    """A note."""
    return Finding(check, Severity.NOTE, str(where), what, remedy or "", tuple(commands))


def raised(check: str, problem: MlclError, commands: Iterable[str]) -> Finding:
    """An exception as an error for `commands`."""
    return error(check, check if problem.where is None else problem.where, problem.what, problem.remedy, commands)


@dataclass(frozen=True)
class CheckResult:
    """What was looked at, by check, what was found, and what each command would do."""

    dataset: str
    looked_at: Mapping[str, str]
    findings: Sequence[Finding]
    verdicts: Mapping[str, Verdict]

    @property
    def sound(self) -> bool:
        """Whether there is no error."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """One plain object."""
        return {
            "command": "check",
            "dataset": self.dataset,
            "verdict": "sound" if self.sound else "a run would fail",
            "verdicts": self.verdicts,
            "looked_at": self.looked_at,
            "findings": [asdict(finding) for finding in self.findings],
        }


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """The distinct findings in order; repeated ones share their commands and the graver severity."""
    merged: dict[tuple[str, str, str], Finding] = {}
    for finding in findings:
        key = finding.check, finding.where, finding.what
        first = merged.setdefault(key, finding)
        severity = first.severity if first.severity is Severity.ERROR else finding.severity
        commands = tuple(dict.fromkeys([*first.commands, *finding.commands]))
        merged[key] = replace(first, severity=severity, commands=commands)
    return list(merged.values())


def judge(findings: Sequence[Finding], reads: Mapping[str, Sequence[str]], splits: Sequence[str]) -> dict[str, Verdict]:
    """What each command would do; one that `reads` more than the checked `splits` is left out, unless it would fail."""
    verdicts = {}
    for command, read in reads.items():
        checks = {finding.check for finding in findings if command in finding.commands}
        if checks:
            verdicts[command] = Verdict.WOULD_FAIL if checks - MISLEADING else Verdict.WRONG_FIGURES
        elif {*read} <= {*splits}:
            verdicts[command] = Verdict.OK
    return verdicts


def require_writable(path: Path) -> None:
    """Raises UsageError if findings would replace a file that holds something else."""
    require_replaceable(path, ",".join(COLUMNS[:4]) if _is_csv(path) else '"command": "check"', "findings")


def write_findings(result: CheckResult, path: Path) -> None:
    """Writes the findings as CSV if the file's name ends so, else as JSON."""
    if not _is_csv(path):
        write_file(path, to_json(result.as_json(), indent=2))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(finding) | {"commands": " ".join(finding.commands)} for finding in result.findings)
    write_file(path, text.getvalue().encode())


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"
