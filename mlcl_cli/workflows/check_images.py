"""What `mlcl check` finds by decoding images. Images that it decoded are remembered in the workspace."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from mlcl_cli.data.records import Split
from mlcl_cli.errors import MachineError
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, open_image, read_files
from mlcl_cli.images.file_stamps import file_stamp
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.workflows.content_digests import read_note, write_note
from mlcl_cli.workflows.findings import CheckReport

MORE_THAN_8_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
MAX_8_BIT = 255
LARGEST_INPUT = 448  # pixels: RN50x64, the largest of OpenAI's


def check_images(report: CheckReport, splits: Sequence[Split], resolution: int | None) -> set[Path]:
    """Decode the images that were not decoded before; return those that cannot be used.

    `resolution` is the width of CLIP's input in pixels, if known.
    """
    profile = report.profile
    transform = Transform(profile.image.transform, profile.image.target_ratio, resolution or LARGEST_INPUT)
    memory = profile.workspace / "features" / "checked.json"
    limits = f"{profile.image.max_megapixels:g}, {transform}"
    known = read_note(memory, dict[str, str]) or {}
    users = users_of(splits)
    stamps = {path: f"{stamp}, {limits}" for path in users if (stamp := file_stamp(path)) is not None}
    verified = {str(path): stamp for path, stamp in stamps.items() if known.get(str(path)) == stamp}
    bad: set[Path] = set()
    for split in splits:
        images = {split.paths[name] for name in split.images()}
        if images and images.isdisjoint(stamps):
            bad |= images
            commands = report.readers(split.name)
            folder = os.path.commonpath([path.parent for path in images])
            what = f"none of the {len(images):,} images of {split.name} exists"
            remedy = f"Download them to run {' or '.join(commands)}"
            is_error = bool(commands) and (report.named or split.name == "val")
            report.add("images", folder, what, remedy, commands, is_error=is_error)
    pending = [(str(path), path) for path in users if str(path) not in verified and path not in bad]
    report.looked_at["images"] = f"{len(users):,}, {len(verified):,} of them verified before"
    values = read_files(
        pending, lambda path, _: _largest_value(open_image(path), transform), choose_workers(profile.workers)
    )
    drop = profile.bad_images == "drop"
    with report.progress.bar(f"Decoding {counted(len(pending), 'image')}", len(pending)) as advance:
        for (name, path), value in zip(pending, values, strict=True):
            if isinstance(value, BadImage):
                bad.add(path)
                readers = report.readers(*users[path])
                commands = [command for command in readers if not drop or command == report.submission]
                remedy = "Replace the image" if drop else "Replace the image, or set bad_images: drop"
                report.add("images", path, value.reason, remedy, commands, is_error=bool(commands))
            elif value > MAX_8_BIT:
                what = f"16-bit: values above {MAX_8_BIT} become white, and it has up to {value:,.0f}"
                report.add("images", path, what, "Convert it to 8 bits per channel")
            elif path in stamps:
                verified[name] = stamps[path]
            advance(1)
    if pending and profile.workspace.is_dir():
        try:
            write_note(memory, verified)
        except MachineError as error:
            what = f"{error.what}: the next check decodes these images again, and training would fail"
            report.add("workspace", profile.workspace, what)
    return bad


def users_of(splits: Sequence[Split]) -> Mapping[Path, list[str]]:
    """The splits that use each image file."""
    users: dict[Path, list[str]] = {}
    for split in splits:
        for name in split.images():
            users.setdefault(split.paths[name], []).append(split.name)
    return users


def _largest_value(image: Image.Image, transform: Transform) -> float:
    """The largest value of an image with more than 8 bits per channel, which conversion to RGB clips; else 0.

    Raises ValueError if the image is too large for `transform`.
    """
    transform.require_size(image.size)
    if image.mode not in MORE_THAN_8_BITS:
        return 0
    return float(image.getextrema()[1])  # type: ignore[arg-type]  # one band: (lowest, highest)
