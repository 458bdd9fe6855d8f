"""`mlcl submit-cirr` and `mlcl submit-circo`: the files that a data set's test server takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import require_submission
from mlcl_cli.errors import UsageError
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.submission import make_answers, write_submission
from mlcl_cli.workflows.retrieval_model import PreparedSplit, prepare_split
from mlcl_cli.workflows.run_context import RunContext


@dataclass(frozen=True)
class SubmissionResult:
    """The files that `command` wrote, and the split whose queries they answer."""

    command: str
    prepared: PreparedSplit
    files: Sequence[Path]

    def as_json(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "command": self.command,
            "queries": len(self.prepared.split.triplets),
            "files": [str(path) for path in self.files],
            "bytes": [path.stat().st_size for path in self.files],
            **self.prepared.provenance(),
        }


def submit(
    profile: Profile,
    progress: Progress,
    command: str,
    *,
    name: str | None = None,
    combining_function: str = "combiner",
    checkpoint: Path | None = None,
) -> SubmissionResult:
    """Write the files of the submission that has that `command`, checked against the server's rules first.

    A bad image is an error here whatever the profile says: the server expects an answer to every query. Raises
    UsageError if the command is for another data set, DataError if the server would refuse a file.
    """
    submission = require_submission(profile.definition, command)
    if name is not None and (not name or Path(name).name != name or name.startswith(".")):
        raise UsageError(
            f"{name!r} cannot be part of a file's name", where="--name", remedy="Leave out slashes and a leading dot"
        )
    context = RunContext.open(profile, progress)
    prepared = prepare_split(context, submission.split, combining_function, checkpoint, complete=True)
    model = prepared.model
    (queries,) = prepared.evaluation.compose(prepared.images, prepared.texts, model.compose)
    label = name or (model.combiner.path.parent.name if model.combiner else "") or model.combining_function
    folder = profile.workspace / "submissions" / label
    paths = write_submission(folder, label, submission, make_answers(queries, submission))
    return SubmissionResult(command, prepared, paths)
