"""The CLIP that a catalog is encoded with, and what identifies it in a store."""

import hashlib
import logging

import pyarrow as pa

from mlcl_cli.features.store import FeatureStore
from mlcl_cli.progress import NOTICE
from mlcl_cli.runs.checkpoints import load_checkpoint
from mlcl_cli.runs.description import Kind
from mlcl_cli.stores.store import Precision, TableInfo
from mlcl_cli.workflows.checkpoint_selection import (
    ClipChoice,
    choose_clip,
    choose_run,
    clip_of_combiner,
)
from mlcl_cli.workflows.run_context import RunContext

logger = logging.getLogger(__name__)


def choose_catalog_clip(context: RunContext) -> ClipChoice:
    """The CLIP that `evaluate` would query with: the profile's `clip.checkpoint`, else that of the best combiner.

    Without a combiner in the workspace, it is the one that `choose_clip` finds. Raises DataError where the combiner's
    CLIP is missing.
    """
    if context.profile.clip.checkpoint != "auto" or (selection := choose_run(context, Kind.COMBINER, None)) is None:
        return choose_clip(context)
    combiner = load_checkpoint(selection.chosen.checkpoint, Kind.COMBINER)
    logger.log(NOTICE, f"Combiner: {selection.chosen.run.name}, {selection.describe(context.protocol.bests[0])}")
    return clip_of_combiner(context, combiner)


def table_info(features: FeatureStore, precision: Precision, fields: pa.Schema) -> TableInfo:
    """What belongs to all rows that `features` encodes."""
    clip = features.fingerprints.both
    text = "\n".join((clip, repr(features.transform), precision))
    encoder = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return TableInfo(encoder, clip, features.encoder.feature_dim, precision, fields)
