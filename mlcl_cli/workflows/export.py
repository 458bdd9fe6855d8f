"""`mlcl export`: checkpoints in the original code's format."""

from collections.abc import Mapping
from pathlib import Path

from mlcl_cli.atomic_files import require_replaceable
from mlcl_cli.errors import UsageError
from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.runs.original_format import FORMAT, write_original


def export_checkpoint(source: Path, output: Path, *, force: bool) -> Mapping[str, object]:
    """Write `source`, a tuned CLIP or a combiner, in the original format, and its description beside it.

    Returns the object that `--json` prints. Raises UsageError for an output that is not a new .pt or .pth file;
    `force` replaces an existing one, but never `source` itself.
    """
    if output.suffix.lower() not in (".pt", ".pth"):
        raise UsageError("must end in .pt or .pth", where=output, remedy="Choose another output")
    description = output.with_suffix(".json")
    for path in (output, description):
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError("is the checkpoint to export", where=path, remedy="Choose another output")
        if path.exists() and not path.is_file():
            raise UsageError("is not a regular file", where=path, remedy="Choose another output")
        if path.exists() and not force:
            raise UsageError("already exists", where=path, remedy="Use --force to overwrite it")
    require_replaceable(description, f'"format": "{FORMAT}"', "the description of an export")
    checkpoint = load_checkpoint(source)
    warnings = write_original(output, checkpoint.state, checkpoint.about)
    files = [str(output), str(description)]
    result = {"command": "export", "kind": checkpoint.about.kind, "tensors": len(checkpoint.state), "files": files}
    return {**result, "warnings": list(warnings)} if warnings else result
