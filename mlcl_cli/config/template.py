"""The commented profile that `mlcl init` writes."""

from pathlib import Path

from mlcl_cli.config.suggestions import did_you_mean
from mlcl_cli.data.datasets import DATASETS
from mlcl_cli.errors import UsageError


def template(dataset: str) -> str:
    """Every key with its default and a comment; only the data set's root is left to fill in.

    Raises UsageError if there is no such data set.
    """
    if dataset not in DATASETS:
        hint = did_you_mean(dataset, tuple(DATASETS))
        raise UsageError(f"the data set must be one of {', '.join(DATASETS)}, not '{dataset}'{hint}")
    text = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    galleries = [f"{name}: {' | '.join(d.protocols)}" for name, d in DATASETS.items() if len(d.protocols) > 1]
    for placeholder, lines in {
        "<dataset>": [f"{dataset:<13}"],
        "<datasets>": [" | ".join(DATASETS)],
        "<roots>": [f"  {name}: {definition.root}" for name, definition in DATASETS.items()],
        "<folders>": [line for name in DATASETS for line in _folders(name)],
        "<galleries>": [", ".join(galleries)],
        "<selectable>": [" and ".join(name for name, definition in DATASETS.items() if definition.selectable_bests)],
        "<name>": [dataset],
    }.items():
        text = text.replace(placeholder, "\n".join(lines))
    return text


def _folders(name: str) -> list[str]:
    """Commented lines for the section of a data set's further folders; none if it has none."""
    root, folders = DATASETS[name].root, DATASETS[name].folders
    title = f"# {name + ':':<28}# where the raw download lies, unless in its root"
    return [title, *(f"#   {key}: {root}/{below}" for key, below in folders.items())] if folders else []
