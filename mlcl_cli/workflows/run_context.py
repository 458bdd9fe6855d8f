"""What every command opens first: device, data, feature store."""

import errno
import logging
import os
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mlcl_cli.atomic_files import nearest_existing_parent, write_file
from mlcl_cli.config import Profile
from mlcl_cli.data.annotations import OnDefect, refuse
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, MachineError, MlclError, StuckError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, BadImagesError, set_limits
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import Compute, choose_compute, choose_workers
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.progress import Progress
from mlcl_cli.runs.description import ImageRecord
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.content_digests import Contents
from mlcl_cli.workflows.provenance import Circumstances, data_digest

logger = logging.getLogger(__name__)

Files = list[tuple[str, Path]]
FEATURES = "features"


@dataclass(frozen=True)
class RunContext:
    """A profile with what a command needs to run it on this machine."""

    profile: Profile
    progress: Progress
    compute: Compute
    workers: int
    writes: bool = True
    _splits: dict[tuple[str, str], Split] = field(default_factory=dict)

    @classmethod
    def open(
        cls, profile: Profile, progress: Progress, *, writes: bool = True, needs_disk: bool = True
    ) -> "RunContext":
        """Choose the device, and raise MachineError if the workspace cannot be written.

        A command that `writes` nothing does not check that. One that does not need the disk (`needs_disk`) keeps its
        features in memory if they cannot be saved.
        """
        compute = choose_compute(profile.device, profile.precision)
        set_limits(profile.image.max_megapixels, profile.image.read_seconds)
        if writes and not needs_disk and (why := read_only_reason(profile.workspace / FEATURES)):
            writes = False
            logger.info(f"The workspace cannot be written ({why}): features are computed in memory and not saved")
        elif writes:
            require_writable(profile.workspace)
        logger.info(f"Device: {compute}. Workspace: {profile.workspace}")
        return cls(profile, progress, compute, choose_workers(profile.workers), writes)

    def for_run(self, profile: Profile) -> "RunContext":
        """The same device and data for another run, whose profile differs in what it trains and how."""
        return replace(self, profile=profile)

    @property
    def protocol(self) -> Protocol:
        """The data set's protocol, with the metric that selects checkpoints first."""
        return self.profile.protocol

    @cached_property
    def base(self) -> BaseClip:
        """The profile's CLIP before tuning. Raises DataError or MachineError if it cannot be loaded."""
        return BaseClip(self.profile.clip.model)

    def split(self, name: str, protocol: Protocol | None = None) -> Split:
        """Read a split of the profile's data set, under its protocol or another of the data set's.

        Raises DataError if it is missing or invalid.
        """
        protocol = protocol or self.protocol
        known = (name, protocol.name) in self._splits
        split = self._read(name, protocol)
        if known:
            return split
        count = counted(len(split.triplets), "triplet")
        logger.info(f"Data: {split.dataset} {name}, {count} from {self.profile.root}")
        return split

    def _read(self, name: str, protocol: Protocol) -> Split:
        if (key := (name, protocol.name)) not in self._splits:
            self._splits[key] = read_split(self.profile, name, protocol)
        return self._splits[key]

    @cached_property
    def validation_digest(self) -> str | None:
        """The digest of the whole validation split; None if it cannot be read."""
        try:
            return data_digest(self._read("val", self.protocol))
        except StuckError:
            raise
        except MlclError:
            return None

    def circumstances(self, data: str | Mapping[str, str], *, combiner: bool) -> Circumstances:
        """What figures on data with that digest depend on, with or without a combiner."""
        weights = self.profile.combiner.inference_weights if combiner else None
        return Circumstances(self.compute.name, self.compute.precision, weights, self.image, data)

    @property
    def image(self) -> dict[str, str | float]:
        """How the profile turns an image into the encoder's input."""
        image = self.profile.image
        return {"transform": image.transform, "target_ratio": image.target_ratio}

    @property
    def image_record(self) -> ImageRecord:
        """The same as runs and checkpoints record it."""
        return ImageRecord.model_validate(self.image)

    def store(self, encoder: Encoder) -> FeatureStore:
        """Features of this data set by `encoder`, with the profile's transform at its resolution."""
        image = self.profile.image
        return FeatureStore(
            folder=self.profile.workspace / FEATURES,
            encoder=encoder,
            transform=Transform(image.transform, image.target_ratio, encoder.size),
            workers=self.workers,
            progress=self.progress,
            dataset=self.profile.dataset,
            writes=self.writes,
            encode_batch=self.profile.clip.encode_batch,
            stamps_of=self.content_digests,
        )

    def content_digests(self, files: Mapping[str, Path]) -> dict[str, str]:
        """A digest of each readable image file by name; remembered in the workspace."""
        contents = Contents(self.profile.workspace, self.workers, self.progress)
        digests = contents.digests(files)
        if self.writes:
            contents.save()
        return digests

    def without_bad(self, split: Split, bad: Collection[BadImage]) -> Split:
        """The split without `bad` images, if the profile says `bad_images: drop`.

        Raises BadImagesError, which lists them all, if it does not, and DataError if nothing is left of a query set.
        """
        if bad and self.profile.bad_images == "stop":
            raise BadImagesError(list(bad), "Fix each image, or set bad_images: drop to skip it")
        names = {image.name for image in bad}
        pruned = split.without(names)
        if pruned == split:
            return split
        dropped = counted(len(names & {*split.images()}), "bad image")
        if empty := [part.name for part in pruned.sets if not part.triplets]:
            what = f"{empty[0]} has no triplets left without {dropped}"
            raise DataError(what, where=split.name, remedy="Replace the bad images")
        lost = len(split.triplets) - len(pruned.triplets)
        logger.warning(f"{split.name}: dropped {dropped} and {counted(lost, 'triplet')}")
        return pruned


def read_split(profile: Profile, name: str, protocol: Protocol | None = None, *, on_defect: OnDefect = refuse) -> Split:
    """A split of the profile's data set, under its protocol or another one. Raises as `DataSet.load` does."""
    return profile.definition.load(
        profile.root, name, protocol or profile.protocol, folders=profile.folders, on_defect=on_defect
    )


def files_of(splits: Sequence[Split], names: Iterable[str]) -> Files:
    """The distinct names with their files."""
    paths = {name: path for split in splits for name, path in split.paths.items()}
    return [(name, paths[name]) for name in dict.fromkeys(names)]


def require_writable(workspace: Path) -> None:
    """Raise MachineError if `workspace` cannot be written. Does not create it, because the command may still fail."""
    probe = _probe(workspace)
    try:
        write_file(probe, b"")
    except MachineError as error:
        raise MachineError(error.what, where=workspace, remedy="Choose another workspace in the profile") from error
    probe.unlink()


def read_only_reason(folder: Path) -> str | None:
    """Why `folder` is read-only for this process: the disk, or files of another user; None if it is writable.

    Other errors, such as a full disk, do not count.
    """
    probe = _probe(folder)
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else None
    locked = any(not os.access(lock, os.W_OK) for lock in folder.glob("*.lock"))
    return os.strerror(errno.EACCES) if locked else None


def _probe(folder: Path) -> Path:
    return nearest_existing_parent(folder) / f".mlcl-{secrets.token_hex(4)}"
