"""Which CLIP and which combiner a command takes, and why."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mlcl_cli.errors import DataError
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.models.encoder import Encoder
from mlcl_cli.models.weights import load_clip, load_tuned
from mlcl_cli.profile import Profile
from mlcl_cli.profile.fields import CLIP_NAMES
from mlcl_cli.training.checkpoints import Checkpoint, load_checkpoint
from mlcl_cli.training.runs import StoredRun, find_runs
from mlcl_cli.workflows.session import Session

STAGES = ("finetune", "combiner")


@dataclass(frozen=True, slots=True)
class ClipChoice:
    """A base model, tuned weights for it if any, and the reason."""

    model: str | Path
    checkpoint: Path | None
    why: str

    def describe(self, workspace: Path) -> dict[str, Any]:
        """What a run stores of it; files by the way to them from the workspace, so that all may move together."""
        checkpoint = None if self.checkpoint is None else place_of(self.checkpoint, workspace)
        return {"model": place_of(self.model, workspace), "checkpoint": checkpoint}

    @classmethod
    def described(cls, told: Mapping[str, Any], workspace: Path, why: str) -> Self:
        """The choice that `describe` told of, in the workspace as it is now."""
        model, checkpoint = told["model"], told["checkpoint"]
        named = model in CLIP_NAMES
        return cls(
            model if named else (workspace / model).resolve(),
            None if checkpoint is None else (workspace / checkpoint).resolve(),
            why,
        )


def place_of(model: str | Path, workspace: Path) -> str:
    """A name as it is, a file by the way to it from the workspace."""
    return model if isinstance(model, str) else os.path.relpath(model, workspace)


def choose_clip(session: Session, start: str | Path | None = None) -> ClipChoice:
    """The CLIP to start from: `start` (a file, or `none`) if given, else as the profile's `clip.checkpoint` says.

    `auto` is this workspace's best tuned CLIP for the data set, protocol, model and transform, or none.
    """
    profile = session.profile
    asked, source = (profile.clip.checkpoint, "clip.checkpoint") if start is None else (start, "--from")
    if isinstance(asked, Path):
        return ClipChoice(profile.clip.model, asked, f"asked for by {source}")
    if asked == "none":
        return ClipChoice(profile.clip.model, None, f"{source} says none")
    candidates = [run for run in stage_runs(profile, "finetune") if _comparable(run, session)]
    scored = [found for run in candidates if (found := run.checkpoint(session.protocol.bests[0])) is not None]
    if not scored:
        return ClipChoice(profile.clip.model, None, "none is tuned in this workspace yet")
    path, score = max(reversed(scored), key=lambda found: found[1])
    why = f"best of {len(scored)} tuned here, {session.protocol.bests[0]} {score:.2f}"
    return ClipChoice(profile.clip.model, path, why)


def load_encoder(session: Session, choice: ClipChoice) -> Encoder:
    """Loads the chosen CLIP onto the device and says which it is."""
    network = load_clip(choice.model)
    workspace = session.profile.workspace
    tuned = ""
    if choice.checkpoint is not None:
        load_tuned(network, load_checkpoint(choice.checkpoint, "clip").state, choice.checkpoint)
        tuned = f", tuned: {_shown(choice.checkpoint, workspace)}"
    session.reporter.note(f"CLIP: {_shown(choice.model, workspace)}{tuned} ({choice.why})")
    return Encoder(network, session.compute)


def choose_combiner(session: Session, asked: Path | None) -> tuple[Checkpoint, str]:
    """The combiner to use: the file asked for, else the newest run's best by the deciding metric; and the reason."""
    if asked is not None:
        return load_checkpoint(asked, "combiner"), "asked for by --checkpoint"
    profile, metric = session.profile, session.protocol.bests[0]
    own = [run for run in stage_runs(profile, "combiner") if run.summary.get("dataset") == profile.dataset]
    scored = [(*found, run) for run in own if (found := run.checkpoint(metric)) is not None]
    if scored:
        path, score, newest = scored[-1]
        alike = [one for one in scored if one[2].summary.get("protocol") == newest.summary.get("protocol")]
        best = max(alike, key=lambda one: one[1])
        better = f"; {_shown(best[0], profile.workspace)} has {best[1]:.2f}" if best[1] > score else ""
        return load_checkpoint(path, "combiner"), f"newest here, best {metric} {score:.2f}{better}"
    raise DataError(
        f"there is no trained combiner for {profile.dataset}",
        where=profile.workspace,
        remedy="Run `mlcl train-combiner` first, give --checkpoint FILE, or take --combining-function sum",
    )


def clip_of(session: Session, checkpoint: Checkpoint) -> ClipChoice:
    """The CLIP that a combiner was trained on, unless the profile names one."""
    known: Mapping[str, Any] = checkpoint.about.get("clip", {})
    profile = session.profile
    if not known or profile.clip.checkpoint != "auto":
        return choose_clip(session)
    why = "the combiner was trained on it"
    return replace(ClipChoice.described(known, profile.workspace, why), model=profile.clip.model)


def require_partner(session: Session, checkpoint: Checkpoint, store: FeatureStore) -> None:
    """Raises DataError where a combiner would be used with another CLIP, transform or data set than its own."""
    about = checkpoint.about
    if "clip" not in about:
        session.reporter.warn(f"{checkpoint.path.name} does not say which CLIP it belongs to: that is not checked")
    elif about["clip"]["fingerprint"] != store.fingerprints["both"]:
        known = about["clip"]
        raise DataError(
            f"was trained on another CLIP ({known['model']}, tuned: {known['checkpoint'] or 'none'})",
            where=checkpoint.path,
            remedy="Set clip.model and clip.checkpoint to that one, or leave clip.checkpoint at auto",
        )
    image = session.about()["image"]
    if about.get("image", image) != image:
        raise DataError(
            f"was trained on images as {about['image']}, and the profile says {image}",
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


def stage_runs(profile: Profile, stage: str) -> list[StoredRun]:
    """The runs of a stage in the profile's workspace that have a checkpoint, oldest first."""
    return find_runs(profile.workspace / stage)


def _comparable(run: StoredRun, session: Session) -> bool:
    about = session.about()
    own = {key: about[key] for key in ("dataset", "image")}
    own_model = place_of(session.profile.clip.model, session.profile.workspace)
    model = run.summary.get("clip", {}).get("model") == own_model
    same_protocol = str(run.summary.get("protocol", "")).startswith(session.protocol.name)
    return model and same_protocol and all(run.summary.get(key) == value for key, value in own.items())


def _shown(path: str | Path, workspace: Path) -> str:
    return str(path.relative_to(workspace)) if isinstance(path, Path) and path.is_relative_to(workspace) else str(path)
