"""`mlcl export`: our checkpoints for the original code."""

from pathlib import Path
from typing import Any

from mlcl_cli.errors import UsageError
from mlcl_cli.training.checkpoints import export_original, load_checkpoint


def export_checkpoint(source: Path, output: Path, *, force: bool) -> dict[str, Any]:
    """Writes `source`, a tuned CLIP or a combiner, as `{"epoch": int, "CLIP" or "Combiner": state_dict}`."""
    if output.exists() and not force:
        raise UsageError("exists already", where=output, remedy="Use --force to overwrite it")
    checkpoint = load_checkpoint(source)
    export_original(checkpoint, output)
    return {"command": "export", "kind": checkpoint.kind, "tensors": len(checkpoint.state), "files": [str(output)]}
