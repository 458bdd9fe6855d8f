"""Which database holds a catalog."""

from pathlib import Path
from urllib.parse import urlsplit

from mlcl_cli.errors import MachineError, UsageError
from mlcl_cli.stores.store import Catalog


def open_catalog(address: str, folder: Path, name: str) -> Catalog:
    """The catalog `name` at an address: "lancedb" (in `folder`/`name`) or "milvus://host:port".

    It may not exist yet. Raises UsageError for another address, and MachineError if a package for it is missing or a
    server cannot be reached.
    """
    if address == "lancedb":
        from mlcl_cli.stores.lance import LanceCatalog

        return LanceCatalog(folder / name)
    if urlsplit(address).scheme == "milvus":
        try:
            import pymilvus  # noqa: F401
        except ModuleNotFoundError as error:
            remedy = "Install it: pip install 'mlcl[milvus]'"
            raise MachineError(
                "needs the package pymilvus, which is not installed", where=address, remedy=remedy
            ) from error
        from mlcl_cli.stores.milvus import MilvusCatalog

        return MilvusCatalog(address, name)
    raise UsageError("no such store", where=address, remedy="Use lancedb, or milvus://host:port")
