"""The data sets that mlcl knows. To add one, write its file and list it here."""

from mlcl_cli.data.circo import CIRCO
from mlcl_cli.data.cirr import CIRR
from mlcl_cli.data.definition import DataSet, Submission
from mlcl_cli.data.fashion200k import FASHION200K
from mlcl_cli.data.fashioniq import FASHIONIQ
from mlcl_cli.data.protocols import Protocol
from mlcl_cli.data.shoes import SHOES
from mlcl_cli.errors import UsageError
from mlcl_cli.suggestions import did_you_mean

DATASETS: dict[str, DataSet] = {dataset.name: dataset for dataset in (FASHIONIQ, SHOES, CIRR, CIRCO, FASHION200K)}
# Every gallery that some data set is validated with, and every caption rule of those that have several.
GALLERIES = tuple(dict.fromkeys(gallery for dataset in DATASETS.values() for gallery in dataset.galleries))
_several = (dataset.caption_rules for dataset in DATASETS.values() if len(dataset.caption_rules) > 1)
CAPTION_RULES = tuple(dict.fromkeys(rule for rules in _several for rule in rules))


def named_protocol(name: str, own: DataSet) -> tuple[DataSet, Protocol]:
    """The protocol of that name, and its data set; `own` is searched first.

    A protocol's name with -noref or -withref appended is the protocol with the reference removed or kept.
    Raises UsageError if there is none.
    """
    known: dict[str, tuple[DataSet, Protocol]] = {}
    for dataset in (own, *DATASETS.values()):
        for protocol in dataset.protocols:
            for variant in (protocol, protocol.with_reference(excluded=not protocol.exclude_reference)):
                known.setdefault(variant.name, (dataset, variant))
    listed = [protocol.name for dataset in (own, *DATASETS.values()) for protocol in dataset.protocols]
    if name not in known:
        hint = did_you_mean(name, [*known])
        raise UsageError(f"unknown protocol {name!r}{hint}", remedy=f"Choose one of {', '.join(dict.fromkeys(listed))}")
    return known[name]


def require_submission(dataset: DataSet, command: str) -> Submission:
    """The submission that `command` writes. Raises UsageError if it is for another data set."""
    if dataset.submission is not None and dataset.submission.command == command:
        return dataset.submission
    fitting = [name for name, other in DATASETS.items() if other.submission and other.submission.command == command]
    raise UsageError(
        f"{command} is for {' and '.join(fitting)}, but this profile's data set is {dataset.name}",
        where="dataset",
        remedy=f"Set dataset: {fitting[0]} and its root",
    )
