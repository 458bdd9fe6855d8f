"""What `mlcl check` finds by decoding images. What was decoded is remembered in the workspace by the file's stamp."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict

from mlcl_cli.data.records import Split
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, open_image, read_files
from mlcl_cli.images.file_stamps import file_stamps
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.workflows.check_machine import ClipSizes
from mlcl_cli.workflows.check_scope import Scope
from mlcl_cli.workflows.content_digests import read_note, write_note
from mlcl_cli.workflows.findings import Finding, FindingsAnd, Looked, error, note

MORE_THAN_8_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
MAX_8_BIT = 255
LARGEST_INPUT = 448  # pixels: RN50x64, the largest of OpenAI's


class _Decoded(BaseModel):
    """Stamps of files that were decoded before, by path, and the limits that they were held to."""

    model_config = ConfigDict(strict=True)

    megapixels: str = ""
    stamps: dict[str, str] = {}


def check_images(scope: Scope, splits: Sequence[Split], clip: ClipSizes | None) -> FindingsAnd[set[Path]]:
    """Decodes the images that were not decoded before; returns those that cannot be used."""
    profile = scope.profile
    transform = Transform(
        profile.image.transform, profile.image.target_ratio, clip.resolution if clip else LARGEST_INPUT
    )
    memory = profile.workspace / "features" / "checked.json"
    limits = f"{profile.image.max_megapixels:g}, {transform}"
    before = read_note(memory, _Decoded) or _Decoded()
    known = before.stamps if before.megapixels == limits else {}
    users = users_of(splits)
    stamps = file_stamps({path: path for path in users})
    verified = {str(path): stamp for path, stamp in stamps.items() if known.get(str(path)) == stamp}
    bad: set[Path] = set()
    for split in splits:
        images = {split.paths[name] for name in split.images()}
        if images and images.isdisjoint(stamps):
            bad |= images
            yield _missing_split(scope, split.name, images)
    pending = [(str(path), path) for path in users if str(path) not in verified and path not in bad]
    yield Looked("images", f"{len(users):,}, {len(users) - len(pending) - len(bad):,} of them verified before")
    values = read_files(
        pending, lambda path, _: _largest_value(open_image(path), transform), choose_workers(profile.workers)
    )
    with scope.progress.bar(f"Decoding {counted(len(pending), 'image')}", len(pending)) as advance:
        for (_, path), value in zip(pending, values, strict=True):
            if isinstance(value, BadImage):
                bad.add(path)
                yield _bad_image(scope, value, users[path])
            elif value > MAX_8_BIT:
                what = f"16-bit: values above {MAX_8_BIT} become white, and it has up to {value:,.0f}"
                yield note("images", path, what, "Convert it to 8 bits per channel")
            else:
                verified[str(path)] = stamps.get(path, "")
            advance(1)
    if pending and profile.workspace.is_dir():
        content = _Decoded(megapixels=limits, stamps=verified).model_dump()
        if problem := write_note(memory, content):
            what = f"{problem.what}: the next check decodes these images again, and training would fail"
            yield note("workspace", profile.workspace, what)
    return bad


def users_of(splits: Sequence[Split]) -> Mapping[Path, list[str]]:
    """The splits that use each image file."""
    users: dict[Path, list[str]] = {}
    for split in splits:
        for name in split.images():
            users.setdefault(split.paths[name], []).append(split.name)
    return users


def _missing_split(scope: Scope, split: str, images: set[Path]) -> Finding:
    commands = scope.readers(split)
    report = error if commands and (scope.named or split == "val") else note
    folder = os.path.commonpath([path.parent for path in images])
    what = f"none of the {len(images):,} images of {split} exists"
    return report("images", folder, what, f"Download them to run {' or '.join(commands)}", commands)


def _bad_image(scope: Scope, bad: BadImage, splits: Sequence[str]) -> Finding:
    drop = scope.profile.bad_images == "drop"
    commands = [command for command in scope.readers(*splits) if not drop or command == scope.submission]
    remedy = "Replace the image" if drop else "Replace the image, or set bad_images: drop"
    return (error if commands else note)("images", bad.path, bad.reason, remedy, commands)


def _largest_value(image: Image.Image, transform: Transform) -> float:
    """The largest value of an image with more than 8 bits per channel, which conversion to RGB clips; else 0.

    Raises ValueError if the image is too large for `transform`.
    """
    transform.require_size(image.size)
    if image.mode not in MORE_THAN_8_BITS:
        return 0
    return float(image.getextrema()[1])  # type: ignore[arg-type]  # one band: (lowest, highest)
