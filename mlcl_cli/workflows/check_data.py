"""What `mlcl check` finds in a data set as a whole: captions, counts, names, leakage, galleries, changed contents."""

import filecmp
import os
import stat
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

from mlcl_cli.data.definition import Published
from mlcl_cli.data.records import Split, Triplet
from mlcl_cli.errors import some
from mlcl_cli.formatting import counted
from mlcl_cli.images.file_stamps import file_stamps
from mlcl_cli.models.encoder import tokenize
from mlcl_cli.workflows.check_images import users_of
from mlcl_cli.workflows.check_scope import Scope
from mlcl_cli.workflows.content_digests import Content, Contents
from mlcl_cli.workflows.findings import Findings, Looked, error, note

CONTEXT_LENGTH = 77  # tokens: METHOD.md, Section 6


def check_captions(splits: Sequence[Split]) -> Findings:
    """Blank and truncated captions, targets that are their own reference, repeated triplets."""
    long_texts: dict[str, str] = {}
    for split in splits:
        seen: dict[Hashable, str] = {}
        for number, triplet in enumerate(split.triplets, 1):
            where = f"{split.name}, {_label(triplet, number)}"
            if any(not caption.strip(" .") for caption in triplet.captions):
                yield note("captions", where, "a caption is blank")
            if triplet.target == triplet.reference:
                yield note("captions", where, "the target is the reference: a miss if references are excluded")
            if (first := seen.setdefault((triplet.pair_id, _content(triplet)), where)) != where:
                yield note("captions", where, f"repeats {first}")
            # A token is a letter at least: shorter texts cannot be too long.
            long_texts |= {text: where for text in triplet.texts if len(text) > CONTEXT_LENGTH}
    for where in _truncated(long_texts):
        yield note("captions", where, f"is longer than {CONTEXT_LENGTH} tokens and will be truncated")
    yield Looked("captions", f"{sum(len(t.captions) for split in splits for t in split.triplets):,}")


def _truncated(texts: Mapping[str, str]) -> list[str]:
    """The values of those `texts` that do not fit into CLIP's context."""
    if not texts:
        return []
    import torch

    tokens = tokenize(list(texts), 4 * CONTEXT_LENGTH, torch.device("cpu"))
    fits = (tokens.lengths <= CONTEXT_LENGTH).tolist()
    return [where for where, fit in zip(texts.values(), fits, strict=True) if not fit]


def check_counts(scope: Scope, splits: Sequence[Split]) -> Findings:
    """Triplets and gallery images against the published counts, if the data set has any."""
    for split in splits:
        published = scope.dataset.published.get(split.name, Published(0))
        images = sum(len(part.gallery) for part in split.sets)
        for noun, number, expected in (
            ("triplet", len(split.triplets), published.triplets),
            ("gallery image", images, published.images),
        ):
            if expected and number != expected:
                yield note("counts", split.name, f"{counted(number, noun)}, published are {expected:,}")
    yield Looked("counts", ", ".join(split.name for split in splits))


def check_leakage(scope: Scope, splits: Sequence[Split]) -> Findings:
    """Validation triplets that are in the training split, too: same reference, target and captions."""
    by_name = {split.name: split for split in splits}
    if not {"train", "val"} <= by_name.keys():
        return
    trained = {_content(triplet) for triplet in by_name["train"].triplets}
    shared = 0
    for part in by_name["val"].sets:
        leaked = [number for number, triplet in enumerate(part.triplets, 1) if _content(triplet) in trained]
        shared += len(leaked)
        if not leaked:
            continue
        where = f"val, {part.name}, {_label(part.triplets[leaked[0] - 1], leaked[0])}"
        remedy = "Download the validation annotations again"
        if len(leaked) == len(part.triplets):
            what = f"this and every other triplet of {part.name} is in train, too: metrics would mean nothing"
            yield error("leakage", where, what, remedy, scope.readers("val"))
        else:
            count = f"{len(leaked):,} of {len(part.triplets):,} triplets of {part.name}"
            yield note("leakage", where, f"{count} are in train, too; this is the first", remedy)
    yield Looked("leakage", f"{shared:,} val triplets are in train")


def check_names(scope: Scope, splits: Sequence[Split]) -> Findings:
    """Names that stand for two files with different contents, in two splits or in one image folder."""
    first: dict[str, Split] = {}
    for split in splits:
        for name, path in split.paths.items():
            other = first.setdefault(name, split)
            if _differ(other.paths[name], path):
                commands = [command for command, read in scope.reads.items() if {other.name, split.name} <= {*read}]
                where = f"{other.name} and {split.name}, image {name!r}"
                what = f"stands for two different files, {other.paths[name]} and {path}"
                remedy = "Rename one of them: features are stored by name"
                yield (error if commands else note)("names", where, what, remedy, commands)
            for spare in split.others.get(name, ()):
                if _differ(path, spare):
                    what = f"has two different files; {path} is used, {spare} is not"
                    yield note("names", f"image {name!r}", what, "Delete the wrong one")


def check_galleries(splits: Sequence[Split], contents: Contents) -> Findings:
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
                yield note("gallery", where, what)
        by_size = _groups({names[0]: stats[names[0]].st_size for names in by_file})
        suspects[where] = {name: files[name] for names in by_size if len(names) > 1 for name in names}
    digests = contents.digests({str(path): path for files in suspects.values() for path in files.values()})
    for where, files in suspects.items():
        for names in _groups({name: digests[str(path)] for name, path in files.items() if str(path) in digests}):
            if len(names) > 1:
                yield note("gallery", where, f"{len(names):,} gallery names are copies of one image: {some(names)}")
    yield Looked("gallery", f"{sum(map(len, galleries.values())):,} names")


def check_contents(scope: Scope, splits: Sequence[Split], contents: Contents) -> Findings:
    """Hashes every image and compares it with the record, which then takes what is new or has a new stamp.

    A file whose content differs under the recorded stamp was damaged on the disk, and its record stays.
    """
    users = {str(path): names for path, names in users_of(splits).items()}
    stamps = file_stamps({path: Path(path) for path in users})
    digests = contents.hashed([(path, Path(path)) for path in stamps])
    recorded = {path: contents.recorded[path] for path in users if path in contents.recorded}
    for path, digest in digests.items():
        old = recorded.get(path, Content("", digest))
        if old.stamp != stamps[path]:
            contents.record(path, Content(stamps[path], digest))
        if old.digest == digest:
            continue
        if old.stamp == stamps[path]:
            what = "the content changed, but size, times and inode did not: the disk may be failing"
            yield error("content", path, what, "Restore the file from a backup", scope.readers(*users[path]))
        else:
            yield note("content", path, "the content changed since it was last recorded")
    yield Looked("content", f"{len(digests):,} hashed, {len(recorded):,} recorded before")


def _differ(one: Path, other: Path) -> bool:
    """Whether two files exist and hold different bytes; their sizes are compared first."""
    try:
        return one != other and not filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False  # missing or unreadable: the check of the images reports it


def _content(triplet: Triplet) -> Hashable:
    return triplet.reference, triplet.target, triplet.captions


def _label(triplet: Triplet, number: int) -> str:
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
