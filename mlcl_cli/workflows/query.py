"""`mlcl evaluate` and `mlcl submit-cirr`: figures and submissions from trained weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch.nn.functional import normalize

from mlcl_cli.data.captions import validation_caption
from mlcl_cli.errors import UsageError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.images.decode import BadImagesError
from mlcl_cli.models.combiner import Combiner
from mlcl_cli.models.weights import fingerprint as fingerprint_of
from mlcl_cli.profile import Profile
from mlcl_cli.reporting import Reporter
from mlcl_cli.retrieval.evaluate import (
    Compose,
    Evaluation,
    Figures,
    compose_queries,
    image_query,
    sum_query,
    text_query,
)
from mlcl_cli.retrieval.submission import make_submissions, write_submissions
from mlcl_cli.workflows.choose import choose_clip, choose_combiner, clip_of, load_encoder, require_partner
from mlcl_cli.workflows.session import Session, files_of, pruned_protocol, require_dataset, versions
from mlcl_cli.workflows.train import combiner_query

CombiningFunction = Literal["combiner", "sum", "image", "text"]
BASELINES: Mapping[str, Compose] = {"sum": sum_query, "image": image_query, "text": text_query}


@dataclass(frozen=True)
class QueryModel:
    """Features of an encoder, a way to compose queries, and where both come from."""

    store: FeatureStore
    compose: Compose
    combining_function: str
    checkpoint: Path | None
    clip: str
    fingerprint: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class EvaluationResult:
    """Figures of one evaluation, traceable."""

    dataset: str
    protocol: str
    model: QueryModel
    figures: Figures

    def as_json(self) -> dict[str, Any]:
        """The object of profile.md, "Results of --json"."""
        queries, gallery = self.figures.queries, self.figures.gallery
        single = len(queries) == 1
        checkpoint = self.model.checkpoint
        return {
            "command": "evaluate",
            "dataset": self.dataset,
            "split": "val",
            "protocol": self.protocol,
            "combining_function": self.model.combining_function,
            "queries": next(iter(queries.values())) if single else queries,
            "gallery": next(iter(gallery.values())) if single else gallery,
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "clip": self.model.clip,
            "checkpoint_fingerprint": self.model.fingerprint,
            "clip_fingerprint": self.model.store.fingerprints["both"],
            "seed": self.model.seed,
            "versions": versions(),
            "metrics": self.figures.metrics,
        }


@dataclass(frozen=True)
class SubmissionResult:
    """The two files for CIRR's server."""

    queries: int
    files: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """The object of profile.md, "Results of --json"."""
        files = [str(path) for path in self.files]
        sizes = [path.stat().st_size for path in self.files]
        return {"command": "submit-cirr", "queries": self.queries, "files": files, "bytes": sizes}


def run_evaluation(
    profile: Profile, reporter: Reporter, *, combining_function: str = "combiner", checkpoint: Path | None = None
) -> EvaluationResult:
    """Evaluates the data set's validation protocol."""
    session = Session.open(profile, reporter)
    split = session.split("val")
    model = _query_model(session, combining_function, checkpoint)
    images = model.store.images(files_of([split], split.images()))
    kept = session.without_bad(split, model.store.bad.values())
    texts = model.store.texts([validation_caption(kept.dataset, t) for t in kept.triplets])
    protocol = pruned_protocol(session.protocol, split, kept)
    evaluation = Evaluation(kept, protocol, lambda triplet: validation_caption(kept.dataset, triplet))
    count = len(kept.triplets)
    with reporter.bar(f"Ranking {count:,} queries", count) as advance:
        figures = evaluation(images, texts, model.compose, advance)
    return EvaluationResult(profile.dataset, protocol.name, model, figures)


def submit_cirr(
    profile: Profile,
    reporter: Reporter,
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
    session = Session.open(profile, reporter)
    split = session.split("test1")
    model = _query_model(session, combining_function, checkpoint)
    store = model.store
    images = store.images(files_of([split], split.images()))
    if store.bad:
        raise BadImagesError(list(store.bad.values()), "Mend them: the server wants every query answered")
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
    return SubmissionResult(len(part.triplets), tuple(files))


def _query_model(session: Session, combining_function: str, asked: Path | None) -> QueryModel:
    profile = session.profile
    if combining_function != "combiner":
        if asked is not None:
            raise UsageError(
                f"--checkpoint names a combiner, and {combining_function} uses none", where="--combining-function"
            )
        choice = choose_clip(session)
        store = session.store(load_encoder(session, choice))
        compose, path, fingerprint, seed = BASELINES[combining_function], None, None, None
    else:
        checkpoint, why = choose_combiner(session, asked)
        session.reporter.note(f"Combiner: {checkpoint.path} ({why})")
        choice = clip_of(session, checkpoint)
        store = session.store(load_encoder(session, choice))
        require_partner(session, checkpoint, store)
        levels = checkpoint.about.get("architecture", {}).get("levels")
        combiner = Combiner.from_state(checkpoint.state, levels=tuple(levels) if levels else None)
        compose, path = combiner_query(combiner.to(session.compute.device).eval(), profile), checkpoint.path
        fingerprint, seed = fingerprint_of(checkpoint.state), checkpoint.about.get("seed")
    clip = str(choice.checkpoint or choice.model)
    return QueryModel(store, compose, combining_function, path, clip, fingerprint, seed)


def _default_name(model: QueryModel) -> str:
    return model.combining_function if model.checkpoint is None else model.checkpoint.parent.name or "combiner"
