"""A combiner and the CLIP that it belongs to."""

import logging
import os
from pathlib import Path

from mlcl_cli.errors import DataError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.runs.checkpoints import Checkpoint, stored_fingerprint
from mlcl_cli.runs.description import ClipRecord, ImageRecord, Kind
from mlcl_cli.runs.listing import FOLDERS
from mlcl_cli.workflows.checkpoint_selection import ClipChoice, choose_clip
from mlcl_cli.workflows.run_context import RunContext
from mlcl_cli.workflows.selection_reasons import ClipReason

logger = logging.getLogger(__name__)


def clip_of(context: RunContext, checkpoint: Checkpoint) -> ClipChoice:
    """The CLIP that a combiner was trained on, where `clip.checkpoint` is `auto`.

    It is found by its fingerprint: the profile's model, the recorded file, or any tuned CLIP of this workspace. Raises
    DataError where it is none of them.
    """
    profile, record = context.profile, checkpoint.about.clip
    if record is None:
        return choose_clip(context)
    if record.fingerprint == context.base.fingerprint:
        return ClipChoice(profile.clip.model, None, ClipReason.COMBINER)
    places = _places(record, checkpoint.path, profile.workspace)
    recorded = [path for path in places if path.is_file() and stored_fingerprint(path) in (record.fingerprint, None)]
    tuned = sorted(profile.workspace.glob(f"{FOLDERS[Kind.CLIP]}/*/best*.safetensors"))
    for path in recorded or (path for path in tuned if stored_fingerprint(path) == record.fingerprint):
        return ClipChoice(profile.clip.model, path, ClipReason.COMBINER)
    untuned = record.checkpoint is None
    raise DataError(
        f"needs the CLIP that it was trained on, fingerprint {record.fingerprint}, recorded as "
        f"{record.model if untuned else places[0]}, which is missing or another CLIP",
        where=checkpoint.path,
        remedy=f"Set {'clip.model' if untuned else 'clip.checkpoint'} to that file",
    )


def require_partner(context: RunContext, checkpoint: Checkpoint, store: FeatureStore) -> None:
    """Raises DataError where a combiner would be used with another CLIP or transform than its own.

    Another data set is allowed, with a warning: that is zero-shot transfer.
    """
    description, image = checkpoint.about, ImageRecord.model_validate(context.image)
    record, fingerprint = description.clip, store.fingerprints.both
    if record is None:
        logger.warning(f"{checkpoint.path.name} does not say which CLIP it belongs to: that is not checked")
    elif record.fingerprint != fingerprint:
        raise DataError(
            f"was trained on another CLIP ({record.model}, tuned: {record.checkpoint or 'none'}, fingerprint "
            f"{record.fingerprint}); this one is {fingerprint}",
            where=checkpoint.path,
            remedy="Set clip.model and clip.checkpoint to that one, or leave clip.checkpoint at auto",
        )
    warn_of_transfer(context, checkpoint.path.name, description.dataset)
    if description.image is not None and description.image != image:
        raise DataError(
            f"was trained with {description.image.settings}, but the profile has {image.settings}",
            where=checkpoint.path,
            remedy="Set image.transform and image.target_ratio to the checkpoint's",
        )
    size = int(checkpoint.state["text_projection_layer.weight"].shape[1])
    if size != store.encoder.feature_dim:
        raise DataError(
            f"takes features of size {size}, and this CLIP gives {store.encoder.feature_dim}",
            where=checkpoint.path,
            remedy="Set clip.model to the model that it was trained on",
        )


def warn_of_transfer(context: RunContext, name: str, trained_on: str | None) -> None:
    """Warns where weights were trained on another data set than the profile's."""
    dataset = context.profile.dataset
    if trained_on is not None and trained_on != dataset:
        logger.warning(f"{name} was trained on {trained_on}: on {dataset} this is zero-shot transfer")


def _places(record: ClipRecord, combiner: Path, workspace: Path) -> list[Path]:
    """Where a combiner's tuned CLIP may be: at its place in this workspace, or in the workspace of the combiner."""
    if record.checkpoint is None:
        return []
    return [Path(os.path.normpath(folder / record.checkpoint)) for folder in (workspace, *combiner.parents[2:3])]
