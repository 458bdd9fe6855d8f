"""What `mlcl check` finds in a data set: captions, counts, leakage, names, images, galleries, changed contents."""

import filecmp
import os
from array import array
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from mlcl_cli.data.definition import Published
from mlcl_cli.data.records import Split, Triplet
from mlcl_cli.errors import MachineError, some
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, open_image, read_files
from mlcl_cli.images.file_stamps import file_stamps
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import choose_workers
from mlcl_cli.models.encoder import tokenize
from mlcl_cli.workflows.content_digests import Content, Contents, read_note, write_note
from mlcl_cli.workflows.findings import CheckReport

CONTEXT_LENGTH = 77  # tokens: METHOD.md, Section 6
MORE_THAN_8_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
MAX_8_BIT = 255
TEXTS_AT_ONCE = 4_096
LARGEST_INPUT = 448  # pixels: RN50x64, the largest of OpenAI's


def check_captions(report: CheckReport, splits: Sequence[Split]) -> None:
    """Find blank and truncated captions, targets that are their own reference, repeated triplets."""
    long_texts: dict[str, tuple[int, int]] = {}
    pooled = [split.triplets for split in splits]
    for position, (split, triplets) in enumerate(zip(splits, pooled, strict=True)):
        repeats = _repeats(triplets)
        for number, triplet in enumerate(triplets):
            if any(not caption.strip(" .") for caption in triplet.captions):
                report.add("captions", _place(split, triplets, number), "a caption is blank")
            if triplet.reference in triplet.targets():
                what = "the target is the reference: a miss if references are excluded"
                report.add("captions", _place(split, triplets, number), what)
            if number in repeats:
                first = _place(split, triplets, repeats[number])
                report.add("captions", _place(split, triplets, number), f"repeats {first}")
            # A token is at least one letter, so shorter texts cannot be too long.
            long_texts |= {text: (position, number) for text in triplet.texts if len(text) > CONTEXT_LENGTH}
    texts = [*long_texts]
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        some_texts = texts[start : start + TEXTS_AT_ONCE]
        lengths = tokenize(some_texts, 4 * CONTEXT_LENGTH, torch.device("cpu")).lengths.tolist()
        for (position, number), length in zip(map(long_texts.__getitem__, some_texts), lengths, strict=True):
            if length > CONTEXT_LENGTH:
                where = _place(splits[position], pooled[position], number)
                report.add("captions", where, f"is longer than {CONTEXT_LENGTH} tokens and will be truncated")
    report.looked_at["captions"] = f"{sum(len(t.captions) for triplets in pooled for t in triplets):,}"


def _repeats(triplets: Sequence[Triplet]) -> dict[int, int]:
    """The triplets that repeat an earlier one, and the first of each. Sorted hashes take 24 bytes per triplet."""
    hashes = array("q", (hash((triplet.pair_id, _content(triplet))) for triplet in triplets))
    if not hashes:
        return {}
    values, order = torch.frombuffer(hashes, dtype=torch.int64).sort(stable=True)
    repeats: dict[int, int] = {}
    for place in (values[1:] == values[:-1]).nonzero().flatten().tolist():
        earlier, number = int(order[place]), int(order[place + 1])
        first = repeats.get(earlier, earlier)
        one, other = triplets[first], triplets[number]
        if (one.pair_id, _content(one)) == (other.pair_id, _content(other)):
            repeats[number] = first
    return repeats


def check_counts(report: CheckReport, splits: Sequence[Split]) -> None:
    """Compare triplets and gallery images with the published counts, if the data set has any."""
    for split in splits:
        published = report.dataset.published.get(split.name, Published(0))
        images = sum(len(part.gallery) for part in split.sets)
        counts = {"triplet": (len(split.triplets), published.triplets), "gallery image": (images, published.images)}
        for noun, (number, expected) in counts.items():
            if expected and number != expected:
                report.add("counts", split.name, f"expected {counted(expected, noun)} as published, got {number:,}")
    report.looked_at["counts"] = ", ".join(split.name for split in splits) or "nothing"


def check_leakage(report: CheckReport, splits: Sequence[Split]) -> None:
    """Find validation triplets that are also in the training split: same reference, target and captions."""
    by_name = {split.name: split for split in splits}
    if not {"train", "val"} <= by_name.keys():
        return
    val = by_name["val"]
    validated = {_content(triplet) for triplet in val.triplets}  # the smaller split
    trained = {content for triplet in by_name["train"].triplets if (content := _content(triplet)) in validated}
    shared = 0
    for part in val.sets:
        leaked = [number for number, triplet in enumerate(part.triplets) if _content(triplet) in trained]
        shared += len(leaked)
        if not leaked:
            continue
        where = f"val, {part.name}, {_label(val, part.triplets, leaked[0])}"
        if is_error := len(leaked) == len(part.triplets):
            what = f"this and every other triplet of {part.name} is also in train: metrics would be meaningless"
        else:
            count = f"{len(leaked):,} of {len(part.triplets):,} triplets of {part.name}"
            what = f"{count} are also in train; this is the first"
        commands = report.readers("val") if is_error else ()
        report.add("leakage", where, what, "Download the validation annotations again", commands, is_error=is_error)
    if not report.dataset.published:  # published splits are as they are
        _check_shared_images(report, by_name["train"], val)
    report.looked_at["leakage"] = f"{shared:,} val triplets are in train"


def _check_shared_images(report: CheckReport, train: Split, val: Split) -> None:
    """Find validation triplets with an image that is trained on."""
    trained = set(train.triplet_images())
    sharing = [number for number, triplet in enumerate(val.triplets) if not trained.isdisjoint(triplet.pair())]
    if sharing:
        where = f"val, {_label(val, val.triplets, sharing[0])}"
        count = f"{len(sharing):,} of {len(val.triplets):,} val triplets"
        what = f"{count} have an image that is trained on; this is the first"
        report.add("leakage", where, what, "Keep each image in one split to measure how the model does on new images")


def check_names(report: CheckReport, splits: Sequence[Split]) -> None:
    """Find names that stand for two files with different contents, in two splits or in one image folder."""
    first_splits: dict[str, Split] = {}
    for split in splits:
        for name, path in split.paths.items():
            other = first_splits.setdefault(name, split)
            if _differ(other.paths[name], path):
                commands = [command for command, read in report.reads.items() if {other.name, split.name} <= {*read}]
                where = f"{other.name} and {split.name}, image {name!r}"
                what = f"stands for two different files, {other.paths[name]} and {path}"
                remedy = "Rename one of them: features are stored by name"
                report.add("names", where, what, remedy, commands, is_error=bool(commands))
            for spare in split.others.get(name, ()):
                if _differ(path, spare):
                    what = f"has two different files; {path} is used, {spare} is not"
                    report.add("names", f"image {name!r}", what, "Delete the wrong one")


def check_images(report: CheckReport, splits: Sequence[Split], resolution: int | None) -> set[Path]:
    """Decode the images that the workspace does not record as decoded; return those that cannot be used.

    `resolution` is the width of CLIP's input in pixels, if known.
    """
    profile = report.profile
    transform = Transform(profile.image.transform, profile.image.target_ratio, resolution or LARGEST_INPUT)
    note_path = profile.workspace / "features" / "checked.json"
    limits = f"{profile.image.max_megapixels:g}, {transform}"
    known = read_note(note_path, dict[str, str]) or {}
    users = _users_of(splits)
    stamps = {path: f"{stamp}, {limits}" for path, stamp in file_stamps({path: path for path in users}).items()}
    verified = {str(path): stamp for path, stamp in stamps.items() if known.get(str(path)) == stamp}
    bad: set[Path] = set()
    for split in splits:
        images = {split.paths[name] for name in split.images()}
        if images and images.isdisjoint(stamps):
            bad |= images
            commands = report.readers(split.name)
            folder = os.path.commonpath([path.parent for path in images])
            first = some([split.paths[name].name for name in split.images()])
            what = f"none of the {len(images):,} images of {split.name} exists: {first}"
            remedy = report.dataset.images_remedy + (f" to run {' or '.join(commands)}" if commands else "")
            is_error = bool(commands) and (report.splits_named or split.name == "val")
            report.add("images", folder, what, remedy, commands, is_error=is_error)
    pending = [(str(path), path) for path in users if str(path) not in verified and path not in bad]
    report.looked_at["images"] = f"{len(users):,}" + (f", {len(verified):,} verified before" if verified else "")
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
                remedy = "Replace the image, or set bad_images: drop"
                if drop:
                    remedy = "It is skipped (bad_images: drop); replace it to use it"
                report.add("images", path, value.reason, remedy, commands, is_error=bool(commands))
            elif value > MAX_8_BIT:
                what = f"more than 8 bits: values above {MAX_8_BIT} become white, and the largest is {value:,.0f}"
                report.add("images", path, what, "Convert it to 8 bits per channel")
            elif path in stamps:
                verified[name] = stamps[path]
            advance(1)
    if pending and profile.workspace.is_dir():
        try:
            write_note(note_path, verified)
        except MachineError as error:
            what = f"{error.what}: the next check decodes these images again, and training would fail"
            report.add("workspace", profile.workspace, what)
    return bad


def check_galleries(report: CheckReport, splits: Sequence[Split], contents: Contents) -> None:
    """Find gallery names that share one file or one content. Only files of equal size are hashed."""
    names_checked = 0
    for split in splits:
        for part in split.sets:
            where = f"{split.name}, {part.name}"
            names_checked += len(part.gallery)
            stamps = file_stamps({name: split.paths[name] for name in part.gallery})
            links: set[str] = set()
            for names in _repeated(stamps):  # a stamp holds the inode
                links.update(names[1:])
                file = split.paths[names[0]].resolve()
                report.add("gallery", where, f"{len(names):,} gallery names are one file, {file}: {some(names)}")
            sizes = {name: stamp.partition("-")[0] for name, stamp in stamps.items() if name not in links}
            suspects = {name: split.paths[name] for names in _repeated(sizes) for name in names}
            digests = contents.digests(suspects)
            for names in _repeated({name: digests[name] for name in suspects if name in digests}):
                what = f"{len(names):,} gallery names are copies of one image: {some(names)}"
                report.add("gallery", where, what)
    report.looked_at["gallery"] = f"{names_checked:,} names"


def check_contents(report: CheckReport, splits: Sequence[Split], contents: Contents) -> None:
    """Hash every image and compare it with the record, to which new files and new stamps are added.

    A file whose content differs under the recorded stamp was damaged on the disk, and its record stays.
    """
    users = {str(path): names for path, names in _users_of(splits).items()}
    recorded = len(users.keys() & contents.recorded.keys())
    stamps = file_stamps({path: Path(path) for path in users})
    digests = contents.hash_files({path: Path(path) for path in stamps})
    for path, digest in digests.items():
        content = Content(stamps[path], digest)
        old = contents.recorded.get(path, content)
        if old.stamp != content.stamp or path not in contents.recorded:
            contents.record(path, content)
        if old.digest == digest:
            continue
        if old.stamp == content.stamp:
            what = "the content changed, but size, times and inode did not: the disk may be failing"
            readers = report.readers(*users[path])
            report.add("content", path, what, "Restore the file from a backup", readers, is_error=True)
        else:
            report.add("content", path, "the content changed since it was last recorded")
    report.looked_at["content"] = f"{len(digests):,} hashed, {recorded:,} recorded before"


def _users_of(splits: Sequence[Split]) -> Mapping[Path, list[str]]:
    """The names of the splits that use each image file."""
    users: dict[Path, list[str]] = {}
    for split in splits:
        for name in split.images():
            users.setdefault(split.paths[name], []).append(split.name)
    return users


def _differ(first: Path, second: Path) -> bool:
    """Whether two files exist and hold different bytes; their sizes are compared first."""
    try:
        return first != second and not filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False  # missing or unreadable: `check_images` reports it


def _content(triplet: Triplet) -> Hashable:
    return triplet.reference, triplet.target, triplet.captions


def _place(split: Split, triplets: Sequence[Triplet], number: int) -> str:
    return f"{split.name}, {_label(split, triplets, number)}"


def _label(split: Split, triplets: Sequence[Triplet], number: int) -> str:
    """A triplet as its annotations count it."""
    triplet = triplets[number]
    if triplet.row is not None:
        return f"{split.unit} {triplet.row}"
    return f"triplet {number + 1}" if triplet.pair_id is None else f"pair {triplet.pair_id}"


def _repeated(values: Mapping[str, str]) -> list[list[str]]:
    """The names that share each value, for values that several names have."""
    groups: dict[str, list[str]] = {}
    for name, value in values.items():
        groups.setdefault(value, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _largest_value(image: Image.Image, transform: Transform) -> float:
    """The largest value of an image with more than 8 bits per channel, which conversion to RGB clips; else 0.

    Raises ValueError if the image is too large for `transform`.
    """
    transform.require_size(image.size)
    if image.mode not in MORE_THAN_8_BITS:
        return 0
    return float(image.getextrema()[1])  # type: ignore[arg-type]  # one band: (lowest, highest)
