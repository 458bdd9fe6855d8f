"""The commented profile that `mlcl init` writes."""

from pathlib import Path

from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import UsageError
from mlcl_cli.suggestions import did_you_mean


def template(dataset: str) -> str:
    """Every key with its default and a comment; only the data set's root is left to set.

    Raises UsageError if there is no such data set.
    """
    from jinja2 import Environment

    if dataset not in DATASETS:
        hint = did_you_mean(dataset, tuple(DATASETS))
        raise UsageError(f"the data set must be one of {', '.join(DATASETS)}, not '{dataset}'{hint}")
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    return environment.from_string(Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")).render(
        dataset=dataset,
        datasets=DATASETS,
        selectable=[name for name, other in DATASETS.items() if other.selectable_bests],
        galleries=[f"{name}: {' | '.join(d.galleries)}" for name, d in DATASETS.items() if len(d.galleries) > 1],
        captions=[f"{name}: {' | '.join(d.caption_rules)}" for name, d in DATASETS.items() if len(d.caption_rules) > 1],
    )
