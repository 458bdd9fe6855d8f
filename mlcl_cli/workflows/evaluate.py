"""`mlcl evaluate` and `mlcl submit-cirr`: figures and submissions from trained weights."""

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.functional import normalize

from mlcl_cli.atomic_files import require_own, write_file
from mlcl_cli.config import Profile
from mlcl_cli.data.captions import validation_caption
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import UsageError
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImagesError
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.weights import fingerprint as fingerprint_of
from mlcl_cli.progress import Progress
from mlcl_cli.retrieval.evaluation import (
    Compose,
    Evaluation,
    Figures,
    combiner_query,
    compose_queries,
    image_query,
    level_query,
    sum_query,
    text_query,
)
from mlcl_cli.retrieval.ranking import UNRANKED, Ranks
from mlcl_cli.retrieval.submission import make_submissions, write_submissions
from mlcl_cli.workflows.checkpoint_selection import choose_clip, choose_combiner, load_encoder, named_clip
from mlcl_cli.workflows.combiner_clip import clip_of, require_partner, warn_of_transfer
from mlcl_cli.workflows.provenance import Circumstances, data_digest, versions
from mlcl_cli.workflows.run_context import RunContext, files_of, pruned_protocol, require_dataset

logger = logging.getLogger(__name__)

CombiningFunction = Literal["combiner", "sum", "image", "text"]
RANK_COLUMNS = ("set", "pair_id", "reference", "target", "caption", "rank", "subset_rank")
BASELINES: Mapping[str, Compose] = {"sum": sum_query, "image": image_query, "text": text_query}
HALVES: dict[str, Compose] = {"image only": image_query, "text only": text_query}


@dataclass(frozen=True)
class RetrievalModel:
    """Features of an encoder, a way to compose queries, the parts that can query `alone`, and where it comes from.

    `trained_on` is the data set of the combiner, or of the tuned CLIP; None where nothing says it.
    """

    store: FeatureStore
    compose: Compose
    alone: Mapping[str, Compose]
    combining_function: str
    checkpoint: Path | None
    clip: str
    trained_on: str | None
    fingerprint: str | None = None
    seed: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Which weights answered."""
        return {
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "clip": self.clip,
            "checkpoint_fingerprint": self.fingerprint,
            "clip_fingerprint": self.store.fingerprints["both"],
            "trained_on": self.trained_on,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of one evaluation, traceable."""

    dataset: str
    protocol: str
    model: RetrievalModel
    figures: Figures
    circumstances: Circumstances

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints (README, "The five commands"; metrics: METHOD.md, Section 8.4)."""
        queries, gallery = self.figures.queries, self.figures.gallery
        single = len(queries) == 1
        return {
            "command": "evaluate",
            "dataset": self.dataset,
            "split": "val",
            "protocol": self.protocol,
            "combining_function": self.model.combining_function,
            "queries": next(iter(queries.values())) if single else queries,
            "gallery": next(iter(gallery.values())) if single else gallery,
            **self.model.as_json(),
            **self.circumstances.as_json(),
            "versions": versions(),
            "metrics": self.figures.metrics,
        }


@dataclass(frozen=True)
class Validation:
    """A validation split less its bad images, its protocol and features, ready to be ranked."""

    split: Split
    protocol: Protocol
    images: FeatureTable
    texts: FeatureTable
    evaluation: Evaluation


@dataclass(frozen=True)
class SubmissionResult:
    """The two files for CIRR's server."""

    queries: int
    files: tuple[Path, ...]
    model: RetrievalModel
    circumstances: Circumstances

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints (README, "The five commands"; metrics: METHOD.md, Section 8.4)."""
        files = [str(path) for path in self.files]
        sizes = [path.stat().st_size for path in self.files]
        told = {"command": "submit-cirr", "queries": self.queries, "files": files, "bytes": sizes}
        return {**told, **self.model.as_json(), **self.circumstances.as_json()}


def run_evaluation(
    profile: Profile,
    progress: Progress,
    *,
    combining_function: str = "combiner",
    checkpoint: Path | None = None,
    ranks: Path | None = None,
) -> EvaluationResult:
    """Evaluates the data set's validation protocol; writes every target's rank to `ranks`, as CSV, if given."""
    if ranks is not None:
        require_own(ranks, ",".join(RANK_COLUMNS), "a table of ranks")
    context = RunContext.open(profile, progress, needs_disk=False)
    split = context.split("val")
    model = load_retrieval_model(context, combining_function, checkpoint)
    validation = validation_of(context, split, model.store)
    count = len(validation.split.triplets)
    with progress.bar(f"Ranking {counted(count, 'query')}", count) as advance:
        found = validation.evaluation.ranks(validation.images, validation.texts, model.compose, advance)
    if ranks is not None:
        write_file(ranks, _as_csv(validation.split, found))
        logger.info(f"Ranks: {ranks}")
    how = context.circumstances(data_digest(validation.split), combiner=combining_function == "combiner")
    figures = validation.evaluation.figures(found)
    return EvaluationResult(profile.dataset, validation.protocol.name, model, figures, how)


def validation_of(context: RunContext, split: Split, store: FeatureStore) -> Validation:
    """What `split` is ranked by: features of `store`, less bad images where the profile permits that."""
    encoded = store.images(files_of([split], split.images()))
    (kept,) = context.without_bad([split], encoded.bad.values())
    texts = store.texts([validation_caption(kept.dataset, triplet) for triplet in kept.triplets])
    protocol = pruned_protocol(context.protocol, split, kept)
    evaluation = Evaluation(kept, protocol, lambda triplet: validation_caption(kept.dataset, triplet))
    return Validation(kept, protocol, encoded.table, texts, evaluation)


def _as_csv(split: Split, ranks: Mapping[str, Ranks]) -> bytes:
    """A line a query, in the annotations' order; a target that is its own reference has no rank."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RANK_COLUMNS)
    for part in split.sets:
        gallery, subset = ranks[part.name]
        for row, triplet in enumerate(part.triplets):
            told = [None if of is None or of[row] == UNRANKED else int(of[row]) for of in (gallery, subset)]
            caption = validation_caption(split.dataset, triplet)
            writer.writerow((part.name, triplet.pair_id, triplet.reference, triplet.target, caption, *told))
    return text.getvalue().encode()


def submit_cirr(
    profile: Profile,
    progress: Progress,
    *,
    name: str | None = None,
    combining_function: str = "combiner",
    checkpoint: Path | None = None,
) -> SubmissionResult:
    """Writes both submission files for CIRR test1, checked against the server's rules first.

    A bad image is an error here whatever the profile says: the server wants every query answered.
    """
    require_dataset(profile, "cirr", "submit-cirr")
    if name is not None and (not name or Path(name).name != name or name.startswith(".")):
        raise UsageError(f"{name!r} cannot be part of a file's name", where="--name", remedy="Use letters and digits")
    context = RunContext.open(profile, progress)
    split = context.split("test1")
    model = load_retrieval_model(context, combining_function, checkpoint)
    store = model.store
    encoded = store.images(files_of([split], split.images()))
    if encoded.bad:
        raise BadImagesError(list(encoded.bad.values()), "Fix them: the server expects an answer to every query")
    images = encoded.table
    texts = store.texts([validation_caption("cirr", triplet) for triplet in split.triplets])
    (part,) = split.sets
    with torch.no_grad():
        captions = texts.index([validation_caption("cirr", triplet) for triplet in part.triplets])
        references = images.index([triplet.reference for triplet in part.triplets])
        queries = compose_queries(captions, references, images.values, texts.values, model.compose)
        gallery = normalize(images.of(part.gallery), dim=-1)
    submissions = make_submissions(part.triplets, part.gallery, queries, gallery)
    label = name or _default_name(model)
    files = write_submissions(profile.workspace / "submissions" / label, label, submissions)
    how = context.circumstances(data_digest(split), combiner=combining_function == "combiner")
    return SubmissionResult(len(part.triplets), tuple(files), model, how)


def load_retrieval_model(context: RunContext, combining_function: str, asked: Path | None) -> RetrievalModel:
    """The model that queries: the combiner in the file `asked`, or the best; or no combiner, but a plain sum or half.

    Raises UsageError where a file is asked for that would not be used, DataError where there is none, or it does not
    fit the CLIP.
    """
    if combining_function != "combiner":
        if asked is not None:
            raise UsageError(
                f"--checkpoint names a combiner, and {combining_function} uses none", where="--combining-function"
            )
        return _plain_model(context, combining_function)
    clip = named_clip(context)
    checkpoint = choose_combiner(context, asked, clip)
    clip = clip or load_encoder(context, clip_of(context, checkpoint))
    store = context.store(clip.encoder)
    require_partner(context, checkpoint, store)
    levels = checkpoint.about.get("architecture", {}).get("levels")
    combiner = Combiner.from_state(checkpoint.state, levels=tuple(levels) if levels else None)
    combiner.to(context.compute.device).eval()
    return RetrievalModel(
        store,
        combiner_query(combiner, context.profile.combiner.inference_weights),
        HALVES | {level: level_query(combiner, level) for level in combiner.architecture.levels},
        combining_function,
        checkpoint.path,
        str(clip.choice.checkpoint or clip.choice.model),
        checkpoint.about.get("dataset"),
        fingerprint_of(checkpoint.state),
        checkpoint.about.get("seed"),
    )


def _plain_model(context: RunContext, combining_function: str) -> RetrievalModel:
    automatic = context.profile.clip.checkpoint == "auto"
    clip = load_encoder(context, choose_clip(context), announce=automatic)
    path = clip.choice.checkpoint or clip.choice.model
    warn_of_transfer(context, str(path), clip.trained_on)
    store, compose = context.store(clip.encoder), BASELINES[combining_function]
    return RetrievalModel(store, compose, HALVES, combining_function, None, str(path), clip.trained_on)


def _default_name(model: RetrievalModel) -> str:
    return model.combining_function if model.checkpoint is None else model.checkpoint.parent.name or "combiner"
