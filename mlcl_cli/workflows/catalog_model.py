"""The model that queries a catalog: a combiner or a baseline, on the CLIP that the catalog was encoded with."""

import logging
from pathlib import Path

from mlcl_cli.errors import DataError
from mlcl_cli.progress import NOTICE
from mlcl_cli.runs.checkpoints import Checkpoint, load_checkpoint, stored_fingerprint
from mlcl_cli.runs.description import Kind
from mlcl_cli.runs.listing import FOLDERS, list_runs
from mlcl_cli.stores.store import TableInfo
from mlcl_cli.workflows.catalog_clip import choose_catalog_clip, table_info
from mlcl_cli.workflows.checkpoint_selection import (
    ClipChoice,
    ClipReason,
    LoadedClip,
    choose_clip,
    clip_of_combiner,
    find_combiner,
    load_encoder,
    named_clip,
)
from mlcl_cli.workflows.composers import COMPOSERS
from mlcl_cli.workflows.retrieval_model import (
    COMBINER,
    RetrievalModel,
    baseline_model,
    combiner_model,
    require_no_checkpoint,
)
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)

SUM = "sum"
INDEX_AGAIN = "Run `mlcl index` again to encode it with this CLIP"


def load_catalog_model(
    context: RunContext, info: TableInfo | None, place: str, combining_function: str | None, path: Path | None
) -> RetrievalModel:
    """The model that queries the catalog at `place`, whose current table is `info`; None before it is indexed.

    Without a `combining_function`, it is the combiner in the file `path`, or the best one that was trained on the
    catalog's CLIP, or, where there is no combiner at all, the sum; which one is reported. Raises UsageError for a
    `path` that a baseline would ignore, DataError where the combiner, the profile's CLIP or its image settings do not
    fit the catalog.
    """
    if combining_function is not None and combining_function in COMPOSERS:
        require_no_checkpoint(combining_function, path)
    if info is not None and path is not None:
        _require_same_clip(load_checkpoint(path, Kind.COMBINER), info, place)
    clip = named_clip(context)
    if info is not None:
        clip = clip or load_encoder(context, _clip_of_catalog(context, info, place))
        _require_clip(clip, info, place)
    model = _load(context, info, place, combining_function, path, clip)
    if info is not None and table_info(model.store, info.precision, info.fields).encoder != info.encoder:
        settings = context.image_record.settings
        remedy = "Set them as they were then, or run `mlcl index` again"
        raise DataError(f"was not encoded with {settings}, as the profile has it", where=place, remedy=remedy)
    return model


def _load(
    context: RunContext,
    info: TableInfo | None,
    place: str,
    combining_function: str | None,
    path: Path | None,
    clip: LoadedClip | None,
) -> RetrievalModel:
    if combining_function is not None and combining_function in COMPOSERS:
        clip = clip or load_encoder(context, choose_catalog_clip(context))
        return baseline_model(context, combining_function, clip)
    checkpoint = find_combiner(context, path, clip)
    if checkpoint is not None:
        clip = clip or load_encoder(context, clip_of_combiner(context, checkpoint))
        return combiner_model(context, checkpoint, clip)
    workspace, dataset = context.profile.workspace, context.profile.dataset
    if info is not None and _has_combiner(context):
        what = f"was encoded with the CLIP {info.clip}, on which no combiner in {workspace} was trained"
        remedy = "Run `mlcl index` again to encode it with the combiner's CLIP, or use --combining-function sum"
        raise DataError(what, where=place, remedy=remedy)
    if combining_function == COMBINER:
        remedy = "Run `mlcl train-combiner` first, pass --checkpoint FILE, or use --combining-function sum"
        raise DataError(f"found no combiner for {dataset}", where=workspace, remedy=remedy)
    what = "No combiner in this workspace: a query is the element-wise sum of its image and its text"
    logger.log(NOTICE, f"{what}. `mlcl train-combiner` trains one")
    return baseline_model(context, SUM, clip or load_encoder(context, choose_clip(context)))


def _clip_of_catalog(context: RunContext, info: TableInfo, place: str) -> ClipChoice:
    """The CLIP that a table was encoded with: the profile's model, or a tuned CLIP of this workspace or its runs."""
    profile = context.profile
    if info.clip == context.base.fingerprints.both:
        return ClipChoice(profile.clip.model, None, ClipReason.CATALOG)
    tuned = sorted(profile.workspace.glob(f"{FOLDERS[Kind.CLIP]}/*/best*.safetensors"))
    for run in list_runs(profile.workspace):
        if run.problem is None and run.summary.clip.fingerprint == info.clip and run.summary.clip.checkpoint:
            tuned.append((profile.workspace / run.summary.clip.checkpoint).resolve())
    for path in tuned:
        if stored_fingerprint(path) == info.clip:
            return ClipChoice(profile.clip.model, path, ClipReason.CATALOG)
    what = f"was encoded with a CLIP that is not in {profile.workspace}, fingerprint {info.clip}"
    remedy = "Set clip.model and clip.checkpoint to that CLIP, or run `mlcl index` again"
    raise DataError(what, where=place, remedy=remedy)


def _require_clip(clip: LoadedClip, info: TableInfo, place: str) -> None:
    fingerprint = clip.encoder.fingerprints().both
    if fingerprint != info.clip:
        choice = clip.choice
        what = f"was encoded with the CLIP {info.clip}, but {choice.checkpoint or choice.model} is {fingerprint}"
        raise DataError(what, where=place, remedy=f"{INDEX_AGAIN}, or set clip.checkpoint to auto")


def _require_same_clip(combiner: Checkpoint, info: TableInfo, place: str) -> None:
    record = combiner.about.clip
    if record is not None and record.fingerprint != info.clip:
        what = f"was trained on the CLIP {record.fingerprint}, but {place} was encoded with {info.clip}"
        raise DataError(what, where=combiner.path, remedy=f"{INDEX_AGAIN}, or choose another combiner")


def _has_combiner(context: RunContext) -> bool:
    runs = list_runs(context.profile.workspace, Kind.COMBINER)
    return any(
        run.problem is None and run.summary.dataset == context.profile.dataset and run.summary.bests for run in runs
    )
