"""`mlcl check`: everything that a run will need, looked at before it begins. Nothing of the user's is touched."""

import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from mlcl_cli.data.captions import training_captions
from mlcl_cli.data.dataset import DATASETS, load_split
from mlcl_cli.data.records import Split, Triplet
from mlcl_cli.errors import DataError, MachineError, MlclError, UsageError
from mlcl_cli.files import require_own, standing, to_json, write_file
from mlcl_cli.images.decode import BadImage, read_images, set_limits
from mlcl_cli.inputs import parse_json
from mlcl_cli.models.compute import choose_compute, choose_workers
from mlcl_cli.models.encoder import tokenise
from mlcl_cli.models.weights import is_there, load_clip
from mlcl_cli.profile import Profile
from mlcl_cli.reporting import Reporter
from mlcl_cli.training.checkpoints import SUFFIX, load_checkpoint

Severity = Literal["error", "note"]
CONTEXT = 77
FEATURE_BYTES = 4


COLUMNS = ("check", "severity", "where", "what")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be. A run fails for an `error`; a `note` is worth knowing."""

    check: str
    severity: Severity
    where: str
    what: str


@dataclass
class CheckResult:
    """What was looked at, by check, and what was found."""

    dataset: str
    looked: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether a run would not fail for what was looked at."""
        return not any(finding.severity == "error" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """One plain object."""
        findings = [asdict(finding) for finding in self.findings]
        verdict = "sound" if self.sound else "a run would fail"
        told = {"verdict": verdict, "looked_at": self.looked, "findings": findings}
        return {"command": "check", "dataset": self.dataset, **told}

    def add(self, check: str, severity: Severity, where: object, what: str) -> None:
        """Notes a finding."""
        self.findings.append(Finding(check, severity, str(where), what))


def check(profile: Profile, reporter: Reporter, *, splits: Sequence[str] = ()) -> CheckResult:
    """Looks at annotations, captions, images, counts, device, CLIP, checkpoints, disk and memory.

    `splits` are the splits to look at, by default train, val, and what a test split there is captions for.
    """
    known = DATASETS[profile.dataset].splits
    if unknown := [name for name in splits if name not in known]:
        raise UsageError(f"{profile.dataset} has no split {unknown[0]!r}", remedy=f"It has {', '.join(known)}")
    set_limits(profile.image.max_megapixels, profile.image.read_seconds)
    result = CheckResult(profile.dataset)
    _device(profile, result)
    loaded = [split for name in splits or known for split in _annotations(profile, name, result, bool(splits))]
    triplets = [triplet for split in loaded for triplet in split.triplets]
    result.looked["annotations"] = f"{len(triplets):,} triplets"
    _captions(loaded, result)
    _counts(loaded, result)
    _images(profile, loaded, reporter, result)
    size = _clip(profile, result)
    _checkpoints(profile, result)
    _room(profile, loaded, size, result)
    return result


def require_writable(path: Path) -> None:
    """Raises UsageError where findings would replace a file that holds something else."""
    require_own(path, ",".join(COLUMNS) if path.suffix.lower() == ".csv" else '"command": "check"', "findings")


def write_findings(result: CheckResult, path: Path) -> None:
    """Writes the findings as CSV where the file's name ends so, else as JSON."""
    if path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(finding) for finding in result.findings)
        write_file(path, text.getvalue().encode())
    else:
        write_file(path, to_json(result.as_json(), indent=2))


def _device(profile: Profile, result: CheckResult) -> None:
    try:
        result.looked["device"] = str(choose_compute(profile.device, profile.precision))
    except MlclError as error:
        result.add("device", "error", error.where, error.what)


def _annotations(profile: Profile, name: str, result: CheckResult, asked: bool) -> Iterator[Split]:
    def found(error: DataError) -> None:
        result.add("annotations", "error", error.where, error.what)

    raw = profile.shoes.images if profile.dataset == "shoes" and profile.shoes.images.is_dir() else None
    gallery = profile.evaluate.gallery
    try:
        yield load_split(profile.dataset, profile.root, name, gallery=gallery, images=raw, on_defect=found)
    except DataError as error:
        # No command needs a test split but the one that submits it.
        needed = asked or name in ("train", "val") or error.what != "does not exist"
        if needed:
            found(error)


def _captions(splits: Sequence[Split], result: CheckResult) -> None:
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
        cut = tokenise(list(texts), CONTEXT, torch.device("cpu"))
        beyond = tokenise(list(texts), 4 * CONTEXT, torch.device("cpu")).lengths > CONTEXT
        assert cut.truncated == int(beyond.sum())
        for (_text, where), long in zip(texts.items(), beyond.tolist(), strict=True):
            if long:
                result.add("captions", "note", where, f"is longer than {CONTEXT} tokens and will be cut")
    result.looked["captions"] = f"{sum(len(t.captions) for split in splits for t in split.triplets):,}"


def _named(triplet: Triplet, number: int) -> str:
    return f"triplet {number}" if triplet.pair_id is None else f"pair {triplet.pair_id}"


def _counts(splits: Sequence[Split], result: CheckResult) -> None:
    for split in splits:
        published = DATASETS[split.dataset].published[split.name]
        own = len(split.triplets), sum(len(part.gallery) for part in split.sets)
        for what, has, should in zip(("triplets", "gallery images"), own, published, strict=True):
            if should and has != should:
                result.add("counts", "note", split.name, f"{has:,} {what}, published are {should:,}")
    result.looked["counts"] = ", ".join(split.name for split in splits)


def _images(profile: Profile, splits: Sequence[Split], reporter: Reporter, result: CheckResult) -> None:
    files = {path: name for split in splits for name in split.images() for path in (split.paths[name],)}
    memory = profile.workspace / "features" / "checked.json"
    stamps = {str(path): stamp for path in files if (stamp := _stamp(path)) is not None}
    limit = f"{profile.image.max_megapixels:g}"
    verified = {path: stamp for path, stamp in _remembered(memory, limit).items() if stamps.get(path) == stamp}
    wanted = [(name, path) for path, name in files.items() if str(path) not in verified]
    workers = choose_workers(profile.workers)
    severity: Severity = "note" if profile.bad_images == "drop" else "error"
    with reporter.bar(f"Decoding {len(wanted):,} images", len(wanted)) as advance:
        for (_name, path), bad in zip(wanted, read_images(wanted, lambda image, _: image.size, workers), strict=True):
            if isinstance(bad, BadImage):
                result.add("images", severity, path, bad.reason)
            else:
                verified[str(path)] = stamps.get(str(path), "")
            advance(1)
    result.looked["images"] = f"{len(files):,}, {len(files) - len(wanted):,} of them verified before"
    if wanted and profile.workspace.is_dir():
        try:
            write_file(memory, to_json({"megapixels": limit, "stamps": verified}))
        except MachineError as error:
            what = f"{error.what}: the next check decodes these images again, and training would fail"
            result.add("workspace", "note", profile.workspace, what)


def _remembered(memory: Path, limit: str) -> Mapping[str, str]:
    """Stamps of files that were decoded before, under the same limit; nothing where the note is not sound."""
    try:
        note = parse_json(memory.read_bytes())
        return dict(note["stamps"]) if note["megapixels"] == limit else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _clip(profile: Profile, result: CheckResult) -> int | None:
    """Checks the CLIP file; returns the size of its features."""
    model = profile.clip.model
    if not is_there(model):
        result.add("clip", "note", "clip.model", f"{model} is not downloaded yet: the first run will")
        return None
    try:
        network = load_clip(model)
    except MlclError as error:
        result.add("clip", "error", error.where, error.what)
        return None
    result.looked["clip"] = str(model)
    return int(network.state_dict()["text_projection"].shape[1])


def _checkpoints(profile: Profile, result: CheckResult) -> None:
    stages = [profile.workspace / stage for stage in ("finetune", "combiner")]
    paths = sorted(path for stage in stages for path in stage.glob(f"*/*{SUFFIX}"))
    if isinstance(profile.clip.checkpoint, Path):
        paths.append(profile.clip.checkpoint)
    for path in paths:
        try:
            load_checkpoint(path)
        except DataError as error:
            result.add("checkpoints", "error", error.where, error.what)
    result.looked["checkpoints"] = f"{len(paths):,}"


def _room(profile: Profile, splits: Sequence[Split], size: int | None, result: CheckResult) -> None:
    free, available = shutil.disk_usage(standing(profile.workspace)).free, psutil.virtual_memory().available
    result.looked["disk"] = f"{free / 2**30:,.1f} GiB free"
    result.looked["memory"] = f"{available / 2**30:,.1f} GiB available"
    if size is None:
        return
    views = profile.combiner.augmented_views
    images = len({path for split in splits for path in split.paths.values()})
    bank = FEATURE_BYTES * size * images * (1 + (views if isinstance(views, int) else 0))
    p, h = profile.combiner.projection_dim, profile.combiner.hidden_dim
    state = 3 * FEATURE_BYTES * (2 * size * p + 4 * p * h + 2 * h * size)
    for what, needed, has in (("disk", bank + 2 * state, free), ("memory", bank + 2 * state, available)):
        if needed > has:
            told = f"{needed / 2**30:,.1f} GiB are needed, {has / 2**30:,.1f} GiB are there"
            result.add(what, "error", profile.workspace if what == "disk" else "this machine", told)


def _stamp(path: Path) -> str | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return f"{status.st_size}-{status.st_mtime_ns}"
