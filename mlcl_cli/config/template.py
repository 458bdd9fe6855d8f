"""The commented profile that `mlcl init` writes."""

from pathlib import Path
from typing import get_args

from mlcl_cli.config.schema import Profile
from mlcl_cli.config.suggestions import did_you_mean
from mlcl_cli.errors import UsageError


def template(dataset: str) -> str:
    """Every key with its default and a comment; only the data set's root is left to fill in.

    Raises UsageError for a name that is no data set.
    """
    names = get_args(Profile.model_fields["dataset"].annotation)
    if dataset not in names:
        raise UsageError(
            f"the data set must be one of {', '.join(names)}, not '{dataset}'{did_you_mean(dataset, names)}"
        )
    text = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8")
    return text.replace("<dataset>", f"{dataset:<13}").replace("<name>", dataset)
