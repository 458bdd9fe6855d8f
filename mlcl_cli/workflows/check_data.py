"""What `mlcl check` finds in a data set as a whole: captions, counts, names, leakage, galleries, changed contents."""

import filecmp
import os
import stat
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from mlcl_cli.data.captions import training_captions
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.data.records import Split, Triplet
from mlcl_cli.errors import some
from mlcl_cli.formatting import counted
from mlcl_cli.images.file_stamps import file_stamp
from mlcl_cli.models.encoder import tokenize
from mlcl_cli.workflows.content_digests import Content, Contents
from mlcl_cli.workflows.findings import NEEDS, CheckResult

CONTEXT = 77  # tokens: METHOD.md, Section 6


def examine_captions(splits: Sequence[Split], result: CheckResult) -> None:
    """Blank and truncated captions, targets that are their own reference, repeated triplets."""
    texts: dict[str, str] = {}
    for split in splits:
        seen: dict[tuple[object, ...], str] = {}
        for number, triplet in enumerate(split.triplets, 1):
            where = f"{split.name}, {_named(triplet, number)}"
            if any(not caption.strip(" .") for caption in triplet.captions):
                result.add("captions", "note", where, "a caption is blank")
            if triplet.target == triplet.reference:
                result.add("captions", "note", where, "the target is the reference: a miss where that is excluded")
            key = (triplet.pair_id, triplet.reference, triplet.target, triplet.captions)
            if (first := seen.setdefault(key, where)) != where:
                result.add("captions", "note", where, f"is the same as {first}")
            texts |= {text: where for text in training_captions(split.dataset, triplet) if len(text) > CONTEXT}
    if texts:
        import torch

        # A token is a letter at least: shorter texts cannot be too long.
        cut = tokenize(list(texts), CONTEXT, torch.device("cpu"))
        beyond = tokenize(list(texts), 4 * CONTEXT, torch.device("cpu")).lengths > CONTEXT
        assert cut.truncated == int(beyond.sum())
        for (_text, where), long in zip(texts.items(), beyond.tolist(), strict=True):
            if long:
                result.add("captions", "note", where, f"is longer than {CONTEXT} tokens and will be cut")
    result.looked["captions"] = f"{sum(len(t.captions) for split in splits for t in split.triplets):,}"


def examine_counts(splits: Sequence[Split], result: CheckResult) -> None:
    """Triplets and gallery images against the published counts, where the data set has any."""
    for split in splits:
        published = DATASETS[split.dataset].published.get(split.name, (0, 0))
        own = len(split.triplets), sum(len(part.gallery) for part in split.sets)
        for what, has, should in zip(("triplet", "gallery image"), own, published, strict=True):
            if should and has != should:
                result.add("counts", "note", split.name, f"{counted(has, what)}, published are {should:,}")
    result.looked["counts"] = ", ".join(split.name for split in splits)


def examine_names(splits: Sequence[Split], result: CheckResult) -> None:
    """Names that stand for two files with different contents, in two splits or in one image folder."""
    first: dict[str, Split] = {}
    for split in splits:
        for name, path in split.paths.items():
            other = first.setdefault(name, split)
            if _differ(other.paths[name], path):
                both = [command for command in result.needing() if {other.name, split.name} <= {*NEEDS[command]}]
                where = f"{other.name} and {split.name}, image {name!r}"
                what = f"stands for two different files, {other.paths[name]} and {path}"
                remedy = "Rename one of them: features are stored by name"
                result.add("names", "error" if both else "note", where, what, remedy, both)
        for name, path in split.paths.items():
            for spare in split.others.get(name, ()):
                if _differ(path, spare):
                    what = f"has two different files; {path} is used, {spare} is not"
                    result.add("names", "note", f"image {name!r}", what, "Delete the wrong one")


def examine_leakage(splits: Sequence[Split], result: CheckResult) -> None:
    """Validation triplets that training sees, too: same reference, target and captions."""
    by_name = {split.name: split for split in splits}
    if not {"train", "val"} <= by_name.keys():
        return
    seen = {_facts(triplet) for triplet in by_name["train"].triplets}
    shared = 0
    for part in by_name["val"].sets:
        places = [number for number, triplet in enumerate(part.triplets, 1) if _facts(triplet) in seen]
        shared += len(places)
        if not places:
            continue
        number = places[0]
        where = f"val, {part.name}, {_named(part.triplets[number - 1], number)}"
        remedy = "Download the validation annotations again"
        if len(places) == len(part.triplets):
            what = f"this and every other triplet of {part.name} is in train, too: figures would mean nothing"
            result.add("leakage", "error", where, what, remedy, result.needing(["val"]))
        else:
            count = f"{len(places):,} of {len(part.triplets):,} triplets of {part.name}"
            result.add("leakage", "note", where, f"{count} are in train, too; this is the first", remedy)
    result.looked["leakage"] = f"{shared:,} val triplets are in train"


def examine_galleries(splits: Sequence[Split], contents: Contents, result: CheckResult) -> None:
    """Gallery names that share one file or one content. Only files of equal size are hashed."""
    galleries = {
        f"{split.name}, {part.name}": {name: split.paths[name] for name in part.gallery}
        for split in splits
        for part in split.sets
        if part.gallery
    }
    suspects: dict[str, dict[str, Path]] = {}
    for where, files in galleries.items():
        stats = {name: status for name, path in files.items() if (status := _status(path)) is not None}
        by_file = _groups({name: (status.st_dev, status.st_ino) for name, status in stats.items()})
        for names in by_file:
            if len(names) > 1:
                what = f"{len(names):,} gallery names are one file, {files[names[0]].resolve()}: {some(names)}"
                result.add("gallery", "note", where, what)
        by_size = _groups({names[0]: stats[names[0]].st_size for names in by_file})
        suspects[where] = {name: files[name] for names in by_size if len(names) > 1 for name in names}
    digests = contents.digests({str(path): path for files in suspects.values() for path in files.values()})
    for where, files in suspects.items():
        for names in _groups({name: digests[str(path)] for name, path in files.items() if str(path) in digests}):
            if len(names) > 1:
                what = f"{len(names):,} gallery names are copies of one image: {some(names)}"
                result.add("gallery", "note", where, what)
    result.looked["gallery"] = f"{sum(map(len, galleries.values())):,} names"


def examine_contents(splits: Sequence[Split], contents: Contents, result: CheckResult) -> None:
    """Hashes every image and compares it with the record, which then takes what is new or has a new stamp.

    A file whose content differs under the recorded stamp was damaged on the disk, and its record stays.
    """
    users: dict[Path, list[str]] = {}
    for split in splits:
        for name in split.images():
            users.setdefault(split.paths[name], []).append(split.name)
    stamps = {str(path): stamp for path in users if (stamp := file_stamp(path)) is not None}
    digests = contents.hashed([(str(path), path) for path in users if str(path) in stamps])
    before = {str(path): contents.recorded[str(path)] for path in users if str(path) in contents.recorded}
    for path, used in users.items():
        if (digest := digests.get(str(path))) is None:
            continue
        old = before.get(str(path))
        if old is not None and old.stamp == stamps[str(path)]:
            if old.digest != digest:
                what = "the content changed, but size, times and inode did not: the disk may be failing"
                remedy = "Restore the file from a backup"
                result.add("content", "error", path, what, remedy, result.needing(used))
            continue
        if old is not None and old.digest != digest:
            result.add("content", "note", path, "the content changed since it was last recorded")
        contents.record(path, Content(stamps[str(path)], digest))
    result.looked["content"] = f"{len(digests):,} hashed, {len(before):,} recorded before"


def _differ(one: Path, other: Path) -> bool:
    """Whether two files are there and hold different bytes; their sizes are compared first."""
    try:
        return one != other and not filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # missing or unreadable, which the images' own check tells


def _facts(triplet: Triplet) -> tuple[object, ...]:
    return triplet.reference, triplet.target, triplet.captions


def _named(triplet: Triplet, number: int) -> str:
    return f"triplet {number}" if triplet.pair_id is None else f"pair {triplet.pair_id}"


def _groups(keys: Mapping[str, Hashable]) -> list[list[str]]:
    """Names by equal key, in order of first mention."""
    groups: dict[Hashable, list[str]] = {}
    for name, key in keys.items():
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _status(path: Path) -> os.stat_result | None:
    """The status of a regular file, or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None
