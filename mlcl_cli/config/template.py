"""The commented profile that `mlcl init` writes."""

from pathlib import Path

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import UsageError
from mlcl_cli.suggestions import did_you_mean


def template(dataset: str) -> str:
    """Every key with its default and a comment; only the data set's root is left to set.

    Raises UsageError if there is no such data set.
    """
    if dataset not in DATASETS:
        hint = did_you_mean(dataset, tuple(DATASETS))
        raise UsageError(f"the data set must be one of {', '.join(DATASETS)}, not '{dataset}'{hint}")
    return rendered("template.yaml", dataset=dataset, **_shared(None))


def own_template(source: str, section: str, triplets: int | None) -> str:
    """Every key for the data set that `section` describes; `triplets` are those in train, None if not known."""
    return rendered("template.yaml", own=section, own_source=source, **_shared(triplets))


def _shared(triplets: int | None) -> dict[str, object]:
    several = {name: d for name, d in DATASETS.items() if len(d.galleries) > 1}
    return {
        "datasets": DATASETS,
        "batch": lambda _stage, usual, comment="": _batch_size(usual, comment, triplets),
        "selectable": [name for name, other in DATASETS.items() if other.selectable_bests],
        "galleries": [f"{name}: {' | '.join(d.galleries)}" for name, d in several.items()],
        "captions": [
            f"{name}: {' | '.join(d.caption_rules)}" for name, d in DATASETS.items() if len(d.caption_rules) > 1
        ],
    }


def _batch_size(usual: int, comment: str, triplets: int | None) -> str:
    """A batch that the training split can fill: without one, nothing would be trained."""
    if triplets is None or triplets >= usual:
        size = usual
    else:
        size = max(2, 1 << (triplets.bit_length() - 1))
        comment = f"{usual:,} in the recipe, but only {triplets:,} training triplets"
    return f"{size:<16}# {comment}" if comment else str(size)


def rendered(file: str, /, **values: object) -> str:
    """The template of that file, with `values`."""
    from jinja2 import Environment

    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return environment.from_string(Path(__file__).with_name(file).read_text(encoding="utf-8")).render(values)
