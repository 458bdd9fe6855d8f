"""mlcl: composed image retrieval by multi-level contrastive learning on CLIP features.

From Python: `from mlcl_cli import Retriever` (GUIDE.md, From Python).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlcl_cli.workflows.retriever import Hit, Query, Retriever

__version__ = "0.1.0"
__all__ = ["Hit", "Query", "Retriever", "__version__"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlcl_cli.workflows import retriever  # only then, since every command imports this file

    return vars(retriever)[name]
