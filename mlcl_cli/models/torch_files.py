"""`.pt` files read as data: nothing in them is executed, and nothing larger than the file itself is allocated.

Both `torch.save` and TorchScript write a zip archive: a pickle (`data.pkl`) whose tensors refer to raw storages
(`data/0`, `data/1`, …); TorchScript adds source code.
"""

import pickle
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from mlcl_cli.errors import DataError
from mlcl_cli.models.weights_unpickler import NotWeightsError, ScriptObject, WeightsUnpickler

MAX_PICKLE = 4 * 2**20  # ten times a CLIP with its optimizer's state; read in a second or two
MAX_SOURCE = 4 * 2**20
CONVERT = "Only plain weights are read. If you trust the file, save its state dict alone"
CONVERT_SCRIPT = "If you trust the file, convert it: torch.save(torch.jit.load(FILE).state_dict(), NEW)"
MAX_ATTRIBUTES = 1_000_000
MAX_NAME = 1000
CLASS = re.compile(
    r"^class (\w+)\(Module\):\n"
    r"  __parameters__ = \[([^\]\n]*)\]\n"
    r"  __buffers__ = \[([^\]\n]*)\]$",
    re.MULTILINE,
)
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
            return _Archive(file, path).content()
    except DataError:
        raise
    except Exception as error:  # a damaged or hostile archive may fail anywhere in zipfile, pickle or torch
        with path.open("rb") as head:
            is_legacy = head.read(len(LEGACY_HEAD)) == LEGACY_HEAD
        if is_legacy:
            remedy = "Convert it: torch.save(torch.load(FILE, weights_only=True), NEW)"
            raise DataError("is in the format of torch before 1.6", where=path, remedy=remedy) from error
        raise DataError("is not a checkpoint, or is damaged", where=path, remedy="Download or copy it again") from error


class _Archive:
    """The entries of a `.pt` file; every size is checked before anything is read."""

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        self._file, self._path = file, path
        entries = file.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        stored = [entry.file_size for entry in entries if entry.compress_type == zipfile.ZIP_STORED]
        if len(self._entries) != len(entries) or sum(stored) > path.stat().st_size:
            raise ValueError("entries have the same name, or overlap")
        pickles = [name for name in self._entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        (self._root,) = (name.removesuffix("data.pkl") for name in pickles)
        self._storages: dict[str, bytearray] = {}
        if self._has("byteorder") and self._read("byteorder") != sys.byteorder.encode():
            raise ValueError("byte order differs from this machine's")

    def content(self) -> object:
        """The unpickled content, or the state dict of a TorchScript module."""
        try:
            content = WeightsUnpickler(self._read("data.pkl", MAX_PICKLE), self._storage).load()
            if isinstance(content, ScriptObject):
                return _script_state(content, self._sources(), self._path)
            return content
        except NotWeightsError as error:
            remedy = CONVERT_SCRIPT if self._has("constants.pkl") else CONVERT
            raise DataError(f"contains more than weights ({error})", where=self._path, remedy=remedy) from error

    def _storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """The first `numel` elements of a storage, flat. Tensors of one storage share its memory."""
        if key not in self._storages:
            self._storages[key] = self._read(f"data/{key}")
        content = self._storages[key]
        if not 0 <= numel * dtype.itemsize <= len(content):
            raise ValueError(f"storage {key} is shorter than declared")
        return torch.frombuffer(content, dtype=dtype, count=numel) if numel else torch.empty(0, dtype=dtype)

    def _sources(self) -> Iterator[tuple[str, str]]:
        """TorchScript's modules and their source code."""
        remaining, folder = MAX_SOURCE, f"{self._root}code/"
        for name, entry in self._entries.items():
            if name.startswith(folder) and name.endswith(".py"):
                with self._file.open(entry) as file:
                    content = file.read(remaining + 1)
                remaining -= len(content)
                if remaining < 0:
                    raise ValueError("too much source code")
                yield name.removeprefix(folder).removesuffix(".py").replace("/", "."), content.decode()

    def _has(self, name: str) -> bool:
        return self._root + name in self._entries

    def _read(self, name: str, limit: int | None = None) -> bytearray:
        """An uncompressed entry of at most `limit` bytes, checked against its CRC."""
        entry = self._entries[self._root + name]
        if entry.compress_type != zipfile.ZIP_STORED or (limit is not None and entry.file_size > limit):
            raise ValueError(f"{name} is compressed or too large")
        content = bytearray(entry.file_size)
        with self._file.open(entry) as file:
            # zipfile compares the CRC at the end of the entry, which the last read reaches.
            if cast("BufferedIOBase", file).readinto(content) != len(content) or file.read(1):
                raise ValueError(f"{name} is truncated")
        return content


def _script_state(root: ScriptObject, sources: Iterable[tuple[str, str]], path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a scripted or traced module by their state-dict names.

    `sources`, the code of its classes by module, lists which attributes those are. Raises NotWeightsError if modules
    contain one another in a circle, and DataError if the code computes plain GELU, which OpenAI's CLIP does not use.
    """
    tensor_names: dict[tuple[str, str], list[str]] = {}
    for module, source in sources:
        if "torch.gelu(" in source:
            what = "computes plain GELU, but OpenAI's CLIP uses quick GELU: results would be wrong"
            raise DataError(what, where=path, remedy="Use a model with quick GELU")
        for name, parameters, buffers in CLASS.findall(source):
            tensor_names[module, name] = re.findall(r'"([^"]+)"', parameters + buffers)
    state: dict[str, Tensor] = {}
    pending, count = [("", root)], 0
    while pending:
        prefix, owner = pending.pop()
        count += 1 + len(owner.attributes)
        if count > MAX_ATTRIBUTES or len(prefix) > MAX_NAME:
            raise NotWeightsError("too many modules")
        for name in tensor_names.get(owner.kind, ()):
            if isinstance(tensor := owner.attributes.get(name), Tensor):
                state[prefix + name] = tensor
        for name, child in owner.attributes.items():
            if isinstance(child, ScriptObject) and child.kind in tensor_names:
                pending.append((f"{prefix}{name}.", child))
    return state
