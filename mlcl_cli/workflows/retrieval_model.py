"""What `evaluate`, the submissions and `report` share: the model that queries, and a split prepared for it."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.records import Split
from mlcl_cli.errors import UsageError
from mlcl_cli.features.bank import FeatureTable
from mlcl_cli.features.store import FeatureStore
from mlcl_cli.formatting import counted
from mlcl_cli.images.decode import BadImagesError
from mlcl_cli.models.combiner import Combiner, InferenceWeights
from mlcl_cli.models.weights import fingerprint
from mlcl_cli.progress import Advance
from mlcl_cli.retrieval.evaluation import (
    Compose,
    Evaluation,
    combiner_query,
    image_query,
    level_query,
    text_query,
)
from mlcl_cli.retrieval.ranking import Ranks
from mlcl_cli.runs.checkpoints import Checkpoint
from mlcl_cli.workflows.checkpoint_selection import (
    LoadedClip,
    choose_clip,
    choose_combiner,
    clip_of_combiner,
    load_encoder,
    named_clip,
    require_compatible,
    warn_of_transfer,
)
from mlcl_cli.workflows.composers import COMPOSERS, TextWeight
from mlcl_cli.workflows.provenance import Circumstances, data_digest
from mlcl_cli.workflows.run_context import RunContext, files_of

COMBINER = "combiner"
SINGLE_MODALITIES: dict[str, Compose] = {"image only": image_query, "text only": text_query}


@dataclass(frozen=True)
class RetrievalModel:
    """The features of a CLIP and a way to compose queries from them, with or without a `combiner`.

    `parts` are the parts of a query that can also query alone: the image, the text, each level of a combiner.
    """

    combining_function: str
    clip: LoadedClip
    store: FeatureStore
    compose: Compose
    parts: Mapping[str, Compose]
    combiner: Checkpoint | None = None
    text_weight: TextWeight | None = None

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the combiner's weights, or of the CLIP's if there is no combiner."""
        return fingerprint(self.combiner.state) if self.combiner else self.store.fingerprints.both


@dataclass(frozen=True)
class PreparedSplit:
    """A split with the features of all its images and captions, ready to be queried by `model`."""

    context: RunContext
    model: RetrievalModel
    evaluation: Evaluation
    images: FeatureTable
    texts: FeatureTable

    @property
    def split(self) -> Split:
        """What is queried: the split without its bad images."""
        return self.evaluation.split

    @property
    def circumstances(self) -> Circumstances:
        """What the figures depend on besides the weights."""
        return self.context.circumstances(data_digest(self.split), combiner=self.model.combiner is not None)

    def provenance(self) -> dict[str, object]:
        """The keys of `--json` that say which weights were used, and under which circumstances."""
        combiner, clip, weight = self.model.combiner, self.model.clip, self.model.text_weight
        return {
            "checkpoint": str(combiner.path) if combiner else None,
            "clip": str(clip.choice.checkpoint or clip.choice.model),
            "checkpoint_fingerprint": self.model.fingerprint if combiner else None,
            "clip_fingerprint": self.model.store.fingerprints.both,
            "trained_on": combiner.about.dataset if combiner else clip.trained_on,
            "seed": combiner.about.seed if combiner else None,
            "text_weight": weight.value if weight else None,
            "text_weight_triplets": weight.triplets if weight else None,
            **asdict(self.circumstances),
        }

    def ranking_bar(self, times: int = 1) -> AbstractContextManager[Advance]:
        """A progress bar over all queries, each ranked `times` times."""
        count = len(self.split.triplets)
        return self.context.progress.bar(f"Ranking {counted(count, 'query')}", count * times)

    def ranks(self) -> dict[str, Ranks]:
        """The targets' ranks by query set. Raises NotFiniteError where a score would not be finite."""
        with self.ranking_bar() as advance:
            return self.evaluation.ranks(self.images, self.texts, self.model.compose, advance)


def prepare_split(
    context: RunContext, name: str, combining_function: str, checkpoint: Path | None = None, *, complete: bool = False
) -> PreparedSplit:
    """Load the split `name`, the model, and the features of the split.

    Bad images are dropped where the profile permits that. With `complete` they are an error whatever the profile says.
    Raises as `load_retrieval_model` does, DataError where the split cannot be read, BadImagesError for bad images.
    """
    (prepared,) = prepare_protocols(
        context, name, [context.protocol], combining_function, checkpoint, complete=complete
    )
    return prepared


def prepare_protocols(
    context: RunContext,
    name: str,
    protocols: Sequence[Protocol],
    combining_function: str,
    checkpoint: Path | None = None,
    *,
    complete: bool = False,
) -> list[PreparedSplit]:
    """The same under several protocols of the data set: one model, and features of all that any of them needs."""
    wholes = [context.split(name, protocol) for protocol in protocols]
    model = load_retrieval_model(context, combining_function, checkpoint)
    store = model.store
    images = store.images(files_of(wholes, [image for whole in wholes for image in whole.images()]))
    if complete and images.bad:
        raise BadImagesError(list(images.bad.values()), "Fix them: the server expects an answer to every query")
    splits = [context.without_bad(whole, images.bad.values()) for whole in wholes]
    texts = store.texts([triplet.query_text for split in splits for triplet in split.triplets])
    return [
        PreparedSplit(context, model, Evaluation(split, replace(protocol, pruned=split != whole)), images.table, texts)
        for split, whole, protocol in zip(splits, wholes, protocols, strict=True)
    ]


def load_retrieval_model(context: RunContext, combining_function: str, path: Path | None) -> RetrievalModel:
    """The model that queries: the combiner in the file `path`, or the best one; or a baseline without a combiner.

    Raises UsageError for a `path` that a baseline would ignore, DataError if there is no combiner, or it does not fit
    the CLIP.
    """
    if combining_function in COMPOSERS:
        require_no_checkpoint(combining_function, path)
        clip = load_encoder(context, choose_clip(context), announce=context.profile.clip.checkpoint == "auto")
        return baseline_model(context, combining_function, clip)
    named = named_clip(context)
    checkpoint = choose_combiner(context, path, named)
    return combiner_model(context, checkpoint, named or load_encoder(context, clip_of_combiner(context, checkpoint)))


def require_no_checkpoint(combining_function: str, path: Path | None) -> None:
    """Raise UsageError for a combiner that a baseline would ignore."""
    if path is not None:
        what = f"--checkpoint names a combiner, but {combining_function} uses none"
        raise UsageError(what, where="--combining-function", remedy="Leave one of them out")


def baseline_model(context: RunContext, combining_function: str, clip: LoadedClip) -> RetrievalModel:
    """The model that queries without a combiner. Raises as its composer does."""
    warn_of_transfer(context, str(clip.choice.checkpoint or clip.choice.model), clip.trained_on)
    store = context.store(clip.encoder)
    composer = COMPOSERS[combining_function](context, store)
    weight = composer.text_weight
    return RetrievalModel(combining_function, clip, store, composer.compose, SINGLE_MODALITIES, text_weight=weight)


def combiner_model(context: RunContext, checkpoint: Checkpoint, clip: LoadedClip) -> RetrievalModel:
    """The model that queries with a combiner. Raises DataError if it does not fit the CLIP."""
    store = context.store(clip.encoder)
    require_compatible(context, checkpoint, store)
    architecture = checkpoint.about.architecture
    combiner = Combiner.from_state(checkpoint.state, levels=tuple(architecture.levels) if architecture else None)
    combiner.to(context.compute.device).eval()
    compose = combiner_query(combiner, InferenceWeights(context.profile.combiner.inference_weights))
    parts = SINGLE_MODALITIES | {level: level_query(combiner, level) for level in combiner.architecture.levels}
    return RetrievalModel(COMBINER, clip, store, compose, parts, checkpoint)
