"""`mlcl prepare-shoes`: the step between a raw download and the annotations that the other commands read."""

from collections.abc import Mapping

from mlcl_cli.atomic_files import write_files
from mlcl_cli.config import Profile
from mlcl_cli.data.definition import Preparation
from mlcl_cli.progress import Progress


def prepare(profile: Profile, dataset: str, preparation: Preparation, progress: Progress) -> Mapping[str, object]:
    """Write all files of the preparation or none; return the object that `--json` prints.

    Raises DataError if the download is incomplete or damaged, MachineError if the files cannot be written.
    """
    profile = profile.model_copy(update={"dataset": dataset})  # the profile may name another
    prepared = preparation.prepare(profile.root, profile.folders, progress)
    write_files(prepared.contents)
    return {
        "command": preparation.command,
        "images": dict(prepared.images),
        "triplets": dict(prepared.triplets),
        "target_is_reference": prepared.target_is_reference,
        "files": [str(path) for path in prepared.contents],
    }
