"""What every command assembles first: device, data, images that can be used."""

import dataclasses
import errno
import hashlib
import logging
import os
import platform
import secrets
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import PIL
import torch

from mlcl_cli import __version__
from mlcl_cli.atomic_files import nearest_existing_parent, to_json, write_file
from mlcl_cli.config import Profile
from mlcl_cli.data.annotations import OnDefect, refuse
from mlcl_cli.data.datasets import load_split, protocol_of
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import DataError, MachineError, MlclError, StuckError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImage, BadImagesError, set_limits
from mlcl_cli.images.image_cache import ImageCache
from mlcl_cli.images.transforms import Transform
from mlcl_cli.models.compute import Compute, choose_compute, choose_workers
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.progress import Progress
from mlcl_cli.workflows.base_clip import BaseClip
from mlcl_cli.workflows.content_digests import Contents

logger = logging.getLogger(__name__)

Files = list[tuple[str, Path]]
FEATURES = "features"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What figures depend on beside the weights; `data` is one split's digest, or each split's by name.

    `inference_weights` is None where no combiner is concerned.
    """

    device: str
    precision: str
    inference_weights: str | None
    image: Mapping[str, str | float]
    data: str | Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """The fields that every result with figures has."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class RunContext:
    """A profile on this machine."""

    profile: Profile
    progress: Progress
    compute: Compute
    workers: int
    writes: bool = True
    _splits: dict[str, Split] = field(default_factory=dict)

    @classmethod
    def open(
        cls, profile: Profile, progress: Progress, *, writes: bool = True, needs_disk: bool = True
    ) -> "RunContext":
        """Chooses the device and makes sure that the workspace can be written (MachineError), if it will be.

        A command that does not need the disk (`needs_disk`) keeps its features in memory where it cannot write them.
        """
        compute = choose_compute(profile.device, profile.precision)
        set_limits(profile.image.max_megapixels, profile.image.read_seconds)
        if writes and not needs_disk and (why := _read_only(profile.workspace / FEATURES)):
            writes = False
            logger.info(f"The workspace cannot be written ({why}): features are computed in memory and not saved")
        elif writes:
            _require_writable(profile.workspace)
        logger.info(f"Device: {compute}. Workspace: {profile.workspace}")
        return cls(profile, progress, compute, choose_workers(profile.workers), writes)

    @property
    def protocol(self) -> Protocol:
        """The data set's protocol, its deciding metric first."""
        protocol = protocol_of(self.profile.dataset, self.profile.evaluate.gallery)
        chosen = self.profile.combiner.select_by
        if chosen == "auto":
            return protocol
        first = f"{chosen}_mean"
        return dataclasses.replace(protocol, bests=(first, *(best for best in protocol.bests if best != first)))

    @cached_property
    def base(self) -> BaseClip:
        """The profile's CLIP before tuning. Raises DataError or MachineError where it cannot be loaded."""
        return BaseClip(self.profile.clip.model)

    def split(self, name: str) -> Split:
        """Reads a split of the profile's data set (DataError where it is not as it should be)."""
        split = self._read(name)
        count = counted(len(split.triplets), "triplet")
        logger.info(f"Data: {split.dataset} {name}, {count} from {self.profile.root}")
        return split

    @cached_property
    def validation_digest(self) -> str | None:
        """The digest of the whole validation split; None where it cannot be read."""
        try:
            return data_digest(self._read("val"))
        except StuckError:
            raise
        except MlclError:
            return None

    def circumstances(self, data: str | Mapping[str, str], *, combiner: bool) -> Circumstances:
        """What figures of this context depend on, on data of that digest."""
        weights = self.profile.combiner.inference_weights if combiner else None
        return Circumstances(self.compute.name, self.compute.precision, weights, self.image, data)

    @property
    def image(self) -> dict[str, str | float]:
        """How the profile turns a picture into the encoder's input."""
        image = self.profile.image
        return {"transform": image.transform, "target_ratio": image.target_ratio}

    def _read(self, name: str) -> Split:
        if name not in self._splits:
            self._splits[name] = read_split(self.profile, name)
        return self._splits[name]

    def transform(self, encoder: Encoder) -> Transform:
        """The profile's transform at the encoder's resolution."""
        image = self.profile.image
        return Transform(image.transform, image.target_ratio, encoder.size)

    def store(self, encoder: Encoder) -> FeatureStore:
        """Features of this data set by `encoder`."""
        return FeatureStore(
            self.profile.workspace / FEATURES,
            encoder,
            self.transform(encoder),
            self.workers,
            self.progress,
            self.profile.dataset,
            writes=self.writes,
            encode_batch=self.profile.clip.encode_batch,
            stamps_of=self.content_digests,
        )

    def content_digests(self, files: Mapping[str, Path]) -> dict[str, str]:
        """A digest of each image file by name, without those that cannot be read; remembered in the workspace."""
        contents = Contents.open(self.profile.workspace, self.workers, self.progress)
        digests = contents.digests(files)
        if self.writes:
            contents.save()
        return digests

    def find_bad(self, pictures: ImageCache) -> dict[str, BadImage]:
        """Decodes images that no bank will vouch for."""
        with self.progress.bar(f"Reading {counted(len(pictures), 'image')}", len(pictures)) as advance:
            return {bad.name: bad for bad in pictures.find_bad(advance)}

    def without_bad(self, split: Split, bad: Iterable[BadImage]) -> Split:
        """The split less its bad images, if the profile says `bad_images: drop`.

        Raises BadImagesError by default, and DataError where too little is left.
        """
        named = set(split.images())
        own = [image for image in bad if image.name in named]
        if not own:
            return split
        if self.profile.bad_images == "stop":
            raise BadImagesError(own, "Fix what is listed, or set bad_images: drop to skip it")
        pruned = split.without({image.name for image in own})
        empty = [part.name for part in pruned.sets if not part.triplets]
        bad_images = counted(len(own), "bad image")
        if empty:
            raise DataError(f"nothing is left of {empty[0]} without {bad_images}", where=split.name)
        lost = len(split.triplets) - len(pruned.triplets)
        logger.warning(f"{split.name}: dropped {bad_images} and {counted(lost, 'triplet')}")
        return pruned


def read_split(profile: Profile, name: str, on_defect: OnDefect = refuse) -> Split:
    """A split of the profile's data set. Raises as `load_split` does."""
    gallery, folders = profile.evaluate.gallery, profile.folders
    return load_split(profile.dataset, profile.root, name, gallery=gallery, folders=folders, on_defect=on_defect)


def _require_writable(workspace: Path) -> None:
    """A workspace that is not there yet is not made: what follows may fail, and then there is nothing to write."""
    probe = nearest_existing_parent(workspace) / f".mlcl-{secrets.token_hex(4)}"
    try:
        write_file(probe, b"")
    except MachineError as error:
        raise MachineError(error.what, where=workspace, remedy="Choose another workspace in the profile") from error
    probe.unlink()


def _read_only(folder: Path) -> str | None:
    """Why nothing can be saved in `folder`: a read-only disk, or files of another user; None where neither is so."""
    probe = nearest_existing_parent(folder) / f".mlcl-{secrets.token_hex(4)}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return error.strerror if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) else None
    locked = any(not os.access(lock, os.W_OK) for lock in folder.glob("*.lock"))
    return os.strerror(errno.EACCES) if locked else None


def files_of(splits: Sequence[Split], names: Iterable[str]) -> Files:
    """The distinct names with their files."""
    paths = {name: path for split in splits for name, path in split.paths.items()}
    return [(name, paths[name]) for name in dict.fromkeys(names)]


def data_digest(split: Split) -> str:
    """Sixteen hex digits that stand for a split's annotations: triplets and gallery names, not image files."""
    sets = [
        [part.name, [(t.reference, t.target, t.captions, t.pair_id, t.members) for t in part.triplets], part.gallery]
        for part in split.sets
    ]
    return hashlib.sha256(to_json([split.dataset, split.name, sets])).hexdigest()[:16]


def pruned_protocol(protocol: Protocol, before: Split, after: Split) -> Protocol:
    """`protocol`, marked as pruned where bad images were dropped from the split."""
    return dataclasses.replace(protocol, pruned=after != before)


@cache
def versions() -> dict[str, str]:
    """Versions of what decides a figure, with the commit where mlcl runs from a checkout."""
    return {
        "mlcl": __version__,
        "torch": torch.__version__,
        "Pillow": PIL.__version__,
        "python": platform.python_version(),
        **_commit(),
    }


def _commit() -> dict[str, str]:
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return {}
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"commit": told}
