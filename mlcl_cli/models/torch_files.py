"""`.pt` files read as data, whether `torch.save` or TorchScript wrote them."""

import pickle
import zipfile
from pathlib import Path

import torch

from mlcl_cli.errors import DataError
from mlcl_cli.models.torch_archive import Archive
from mlcl_cli.models.torchscript import script_state
from mlcl_cli.models.weights_unpickler import NotWeightsError, ScriptObject, WeightsUnpickler

CONVERT = "Only plain weights are read. If you trust the file, save its state dict alone"
CONVERT_SCRIPT = "If you trust the file, convert it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
LEGACY_HEAD = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)


def read_torch_file(path: Path) -> object:
    """Plain values and tensors that `torch.save` wrote; of a TorchScript archive, its state dict.

    Nothing in the file is executed. Raises DataError for a file that is missing, damaged, or contains anything else.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise DataError(what, where=path, remedy="Give the path of a checkpoint")
    try:
        with zipfile.ZipFile(path) as file:
            archive = Archive(file, path)
            try:
                content = WeightsUnpickler(archive).load()
                return script_state(archive, content) if isinstance(content, ScriptObject) else content
            except NotWeightsError as error:
                remedy = CONVERT_SCRIPT if archive.is_script else CONVERT
                raise DataError(f"contains more than weights ({error})", where=path, remedy=remedy) from error
    except DataError:
        raise
    except Exception as error:  # a damaged or hostile archive may fail anywhere in zipfile, pickle or torch
        if _is_legacy(path):
            remedy = "Convert it: torch.save(torch.load(FILE, weights_only=True), NEW)"
            raise DataError("is in the format of torch before 1.6", where=path, remedy=remedy) from error
        raise DataError("is not a checkpoint, or is damaged", where=path, remedy="Download or copy it again") from error


def _is_legacy(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(LEGACY_HEAD)) == LEGACY_HEAD
