"""`mlcl check`: everything that a run will need, looked at before it begins. Nothing of the user's is touched."""

import os
import shutil
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from PIL import Image

from mlcl_cli.atomic_files import nearest_existing_parent, to_json
from mlcl_cli.config import Profile
from mlcl_cli.data.datasets import DATASETS, load_split
from mlcl_cli.data.prepare_shoes import read_raw_shoes
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, MlclError, UsageError
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, open_image, read_files, set_limits
from mlcl_cli.images.file_stamps import file_stamp
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import choose_compute, choose_workers
from mlcl_cli.models.foreign_layouts import UNKNOWN_ACTIVATION
from mlcl_cli.models.weights import is_official, load_clip, needs_download
from mlcl_cli.progress import Progress
from mlcl_cli.safe_reading import parse_json
from mlcl_cli.workflows.check_data import (
    examine_captions,
    examine_contents,
    examine_counts,
    examine_galleries,
    examine_leakage,
    examine_names,
)
from mlcl_cli.workflows.check_runs import examine_batches, examine_checkpoints
from mlcl_cli.workflows.content_digests import Contents, read_note, write_note
from mlcl_cli.workflows.findings import NEEDS, PREPARE, CheckResult, Severity

FEATURE_BYTES = 4
SUBMIT = "submit-cirr"
DEEP_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
STATE_COPIES = 3  # weights and the two moments of AdamW
BRIGHTEST = 255
LARGEST_INPUT = 448  # OpenAI's, in pixels


class _ClipSize(NamedTuple):
    features: int
    parameters: int
    resolution: int


def check(profile: Profile, progress: Progress, *, splits: Sequence[str] = (), content: bool = False) -> CheckResult:
    """Looks at annotations, images, counts, device, CLIP, checkpoints, disk and memory, and judges each command.

    `splits` are the splits to look at, by default all. A training or test split that is missing as a whole is a note:
    the data is meant for other commands. Where the user names the split, it is an error. `content` hashes every image
    and compares it with what was recorded.
    """
    known = DATASETS[profile.dataset].splits
    if unknown := [name for name in splits if name not in known]:
        raise UsageError(f"{profile.dataset} has no split {unknown[0]!r}", remedy=f"It has {', '.join(known)}")
    set_limits(profile.image.max_megapixels, profile.image.read_seconds)
    result = CheckResult(profile.dataset, tuple(splits or known), asked=bool(splits))
    contents = Contents.open(profile.workspace, choose_workers(profile.workers), progress)
    _device(profile, result)
    _preparation(profile, progress, result)
    loaded = _annotations(profile, result)
    examine_captions(loaded, result)
    examine_counts(loaded, result)
    examine_leakage(loaded, result)
    examine_names(loaded, result)
    size = _clip(profile, result)
    transform = Transform(
        profile.image.transform, profile.image.target_ratio, LARGEST_INPUT if size is None else size.resolution
    )
    bad = _images(profile, loaded, transform, progress, result)
    if content:
        examine_contents(loaded, contents, result)
    examine_galleries(loaded, contents, result)
    if profile.workspace.is_dir():
        contents.save()
    examine_batches(profile, loaded, bad, result)
    examine_checkpoints(profile, result)
    _room(profile, loaded, size, result)
    return result


def _device(profile: Profile, result: CheckResult) -> None:
    try:
        result.looked["device"] = str(choose_compute(profile.device, profile.precision))
    except MlclError as error:
        result.add("device", "error", error.where, error.what, error.remedy, result.needing())


def _preparation(profile: Profile, progress: Progress, result: CheckResult) -> None:
    """Whether `prepare-shoes` would work, where it has to come first."""
    prepared = profile.roots.shoes / "annotations"
    files = [prepared / f"{kind}.{split}.json" for kind in ("split", "triplet") for split in ("train", "val")]
    result.prepares = profile.dataset == "shoes" and not all(file.exists() for file in files)
    if not result.prepares:
        return
    try:
        counts, _ = read_raw_shoes(profile.shoes.images, profile.shoes.annotations, prepared, progress)
    except DataError as error:
        result.add(PREPARE, "error", error.where, error.what, error.remedy, [PREPARE])
    else:
        result.looked[PREPARE] = f"{sum(counts.images.values()):,} raw images"


def _annotations(profile: Profile, result: CheckResult) -> list[Split]:
    """The splits that can be read. Each error is reported once, with the commands that it stops."""
    raw = profile.shoes.images if profile.dataset == "shoes" and profile.shoes.images.is_dir() else None
    gallery = profile.evaluate.gallery
    loaded: list[Split] = []
    absent: dict[str, DataError] = {}
    for name in result.splits:
        found = partial(_report, result, name)
        try:
            split = load_split(profile.dataset, profile.root, name, gallery=gallery, images=raw, on_defect=found)
            loaded.append(split)
        except DataError as error:
            if result.asked or not _is_absent(name, error):
                found(error)
            else:
                absent[name] = error
    for name, lack in absent.items():
        commands = result.needing([name])
        if name == "val" or not any(split.name == "val" for split in loaded):
            _report(result, name, lack)
        elif commands:
            what = f"there are no annotations of {name}"
            result.add("annotations", "note", lack.where, what, _to_run(commands), commands)
    result.looked["annotations"] = counted(sum(len(split.triplets) for split in loaded), "triplet")
    return loaded


def _report(result: CheckResult, split: str, error: DataError) -> None:
    """An annotation error: a note where no command reads the split, as with FashionIQ's test split."""
    commands = result.needing([split])
    severity: Severity = "error" if commands or result.asked else "note"
    result.add("annotations", severity, error.where, error.what, error.remedy, commands)


def _is_absent(split: str, error: DataError) -> bool:
    """Whether the error says that an annotation file is missing, and the folder has no other of this split."""
    where = error.where
    if not isinstance(error.__cause__, FileNotFoundError) or not isinstance(where, Path):
        return False
    return f".{split}." in where.name and not any(where.parent.glob(f"*.{split}.*"))


def _to_run(commands: Sequence[str]) -> str:
    return f"Download them to run {' or '.join(commands)}"


def _images(
    profile: Profile, splits: Sequence[Split], transform: Transform, progress: Progress, result: CheckResult
) -> set[Path]:
    """Decodes what was not verified before; returns the images that cannot be used."""
    users: dict[Path, list[str]] = {}
    for split in splits:
        for name in split.images():
            users.setdefault(split.paths[name], []).append(split.name)
    memory = profile.workspace / "features" / "checked.json"
    stamps = {path: stamp for path in users if (stamp := file_stamp(path)) is not None}
    limit = f"{profile.image.max_megapixels:g}, {transform}"
    before = _remembered(memory, limit)
    verified = {str(path): stamp for path, stamp in stamps.items() if before.get(str(path)) == stamp}
    absent = _absent_images(splits, stamps, result)
    bad = set(absent)
    wanted = [(str(path), path) for path in users if str(path) not in verified and path not in absent]

    def brightest(path: Path, _position: int) -> float:
        image = open_image(path)
        transform.require_size(image.size)
        return _brightest(image)

    looks = read_files(wanted, brightest, choose_workers(profile.workers))
    with progress.bar(f"Decoding {counted(len(wanted), 'image')}", len(wanted)) as advance:
        for (_name, path), found in zip(wanted, looks, strict=True):
            if isinstance(found, BadImage):
                bad.add(path)
                _report_bad(profile, users[path], found, result)
            elif found > BRIGHTEST:
                what = f"16-bit: values above {BRIGHTEST} become white, and it has up to {found:,.0f}"
                result.add("images", "note", path, what, "Convert it to 8 bits per channel")
            else:
                verified[str(path)] = stamps.get(path, "")
            advance(1)
    result.looked["images"] = f"{len(users):,}, {len(users) - len(wanted) - len(absent):,} of them verified before"
    if not wanted or not profile.workspace.is_dir():
        return bad
    if error := write_note(memory, to_json({"megapixels": limit, "stamps": verified})):
        what = f"{error.what}: the next check decodes these images again, and training would fail"
        result.add("workspace", "note", profile.workspace, what)
    return bad


def _absent_images(splits: Sequence[Split], there: Container[Path], result: CheckResult) -> set[Path]:
    """The images of splits of which not one file is there. Each such split is one finding."""
    absent: set[Path] = set()
    for split in splits:
        own = {split.paths[name] for name in split.images()}
        if not own or any(path in there for path in own):
            continue
        absent |= own
        commands = result.needing([split.name])
        needed = commands and (result.asked or split.name == "val")
        folder = os.path.commonpath([path.parent for path in own])
        what = f"none of the {len(own):,} images of {split.name} exists"
        result.add("images", "error" if needed else "note", folder, what, _to_run(commands), commands)
    return absent


def _report_bad(profile: Profile, splits: Sequence[str], bad: BadImage, result: CheckResult) -> None:
    commands = result.needing(splits)
    remedy = "Replace the image, or set bad_images: drop"
    if profile.bad_images == "drop":
        commands = [command for command in commands if command == SUBMIT]  # the server wants every query answered
        remedy = "Replace the image"
    result.add("images", "error" if commands else "note", bad.path, bad.reason, remedy, commands)


def _brightest(image: Image.Image) -> float:
    """The highest value of a picture with more than 8 bits a channel, which conversion to RGB clips; else 0."""
    if image.mode not in DEEP_MODES:
        return 0
    return float(image.getextrema()[1])  # type: ignore[arg-type]  # one band: (lowest, highest)


def _remembered(memory: Path, limit: str) -> Mapping[str, str]:
    """Stamps of files that were decoded before, under the same limit; nothing where the note is not sound."""
    try:
        note = parse_json(read_note(memory))
        return dict(note["stamps"]) if note["megapixels"] == limit else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _clip(profile: Profile, result: CheckResult) -> _ClipSize | None:
    """Checks the CLIP file; returns its sizes."""
    model = profile.clip.model
    if needs_download(model):
        result.add("clip", "note", "clip.model", f"{model} is not downloaded yet: the first run will")
        return None
    try:
        network = load_clip(model)
    except MlclError as error:
        result.add("clip", "error", error.where, error.what, error.remedy, result.needing())
        return None
    if isinstance(model, Path) and not is_official(model):
        result.add("clip", "note", model, UNKNOWN_ACTIVATION)
    result.looked["clip"] = str(model)
    visual: Any = network.visual
    weights = network.state_dict()
    features = int(weights["text_projection"].shape[1])
    parameters = sum(tensor.numel() for tensor in weights.values())
    return _ClipSize(features, parameters, int(visual.input_resolution))


def _room(profile: Profile, splits: Sequence[Split], size: _ClipSize | None, result: CheckResult) -> None:
    """Disk and memory for each command: its images' features, and for training two states."""
    free, available = (
        shutil.disk_usage(nearest_existing_parent(profile.workspace)).free,
        psutil.virtual_memory().available,
    )
    result.looked["disk"] = f"{free / 2**30:,.1f} GiB free"
    result.looked["memory"] = f"{available / 2**30:,.1f} GiB available"
    if size is None:
        return
    banked = _bytes_of(profile.workspace / "features")
    views = profile.combiner.augmented_views
    p, h, d = profile.combiner.projection_dim, profile.combiner.hidden_dim, size.features
    states = {"finetune": size.parameters, "train-combiner": 2 * d * p + 4 * p * h + 2 * h * d}
    wanting: dict[str, dict[str, int]] = {"disk": {}, "memory": {}}
    for command in result.needing():
        images = len({path for split in splits if split.name in NEEDS[command] for path in split.paths.values()})
        copies = 1 + (views if command == "train-combiner" and isinstance(views, int) else 0)
        bank = FEATURE_BYTES * d * images * copies
        state = 2 * STATE_COPIES * FEATURE_BYTES * states.get(command, 0)
        for what, needed, has in (("disk", max(0, bank - banked) + state, free), ("memory", bank + state, available)):
            if needed > has:
                wanting[what][command] = needed
    for what, commands in wanting.items():
        if commands:
            has = free if what == "disk" else available
            told = f"{max(commands.values()) / 2**30:,.1f} GiB are needed, {has / 2**30:,.1f} GiB are there"
            place = profile.workspace if what == "disk" else "this machine"
            remedy = "Free space, or choose another workspace" if what == "disk" else "Close other programs"
            result.add(what, "error", place, told, remedy, commands)


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another process may be replacing it
            total += path.lstat().st_size
    return total
