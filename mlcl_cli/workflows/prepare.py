"""`mlcl prepare-shoes`."""

from typing import Any

from mlcl_cli.config import Profile
from mlcl_cli.data.prepare_shoes import prepare_shoes
from mlcl_cli.progress import Progress


def prepare(profile: Profile, progress: Progress) -> dict[str, Any]:
    """Prepares the profile's raw Shoes download; returns what `--json` prints (README, "The five commands")."""
    output = profile.roots.shoes / "annotations"
    prepared = prepare_shoes(profile.shoes.images, profile.shoes.annotations, output, progress)
    return {
        "command": "prepare-shoes",
        "images": dict(prepared.images),
        "triplets": dict(prepared.triplets),
        "target_is_reference": prepared.target_is_reference,
        "files": [str(path) for path in prepared.files],
    }
