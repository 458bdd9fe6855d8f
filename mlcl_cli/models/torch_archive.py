"""The zip archive of a `.pt` file, read as data: nothing larger than the file itself is allocated.

Both `torch.save` and TorchScript write one: a pickle (`data.pkl`) whose tensors refer to raw storages (`data/0`,
`data/1`, …); TorchScript adds source code.
"""

import sys
import zipfile
from io import BufferedIOBase
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

MAX_ENTRIES = 100_000
MAX_PICKLE = 4 * 2**20  # ten times a CLIP with its optimizer's state; read in a second or two
MAX_SOURCE = 4 * 2**20


class Archive:
    """The entries of a `.pt` file. Every size is checked before anything is read.

    Raises ValueError or another exception of `zipfile` where the archive is damaged or not torch's.
    """

    def __init__(self, file: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self._file, self._size = file, path.stat().st_size
        entries = file.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        if len(entries) > MAX_ENTRIES or len(self._entries) != len(entries):
            raise ValueError("too many entries, or an entry appears twice")
        (self._root,) = (name.removesuffix("data.pkl") for name in self._entries if _is_root_pickle(name))
        self._storages: dict[str, bytearray] = {}
        if self._has("byteorder") and self._read("byteorder", self._size) != sys.byteorder.encode():
            raise ValueError("byte order differs from this machine's")

    @property
    def is_script(self) -> bool:
        """Whether TorchScript wrote it."""
        return self._has("constants.pkl")

    def pickle(self) -> bytearray:
        """The pickle of the archive's content."""
        return self._read("data.pkl", MAX_PICKLE)

    def source(self, module: str) -> str:
        """The source code of a TorchScript module, or the empty string."""
        name = f"code/{module.replace('.', '/')}.py"
        if not self._has(name):
            return ""
        with self._file.open(self._entries[self._root + name]) as file:
            content = file.read(MAX_SOURCE + 1)
        if len(content) > MAX_SOURCE:
            raise ValueError(f"{name} is too large")
        return content.decode()

    def storage(self, key: str, dtype: torch.dtype, numel: int) -> Tensor:
        """The first `numel` elements of storage `data/<key>`, flat. Names of one storage share its memory.

        Raises ValueError where the storage is shorter, or all storages together are larger than the file.
        """
        if key not in self._storages:
            remaining = self._size - sum(map(len, self._storages.values()))
            self._storages[key] = self._read(f"data/{key}", remaining)
        content = self._storages[key]
        if not 0 <= numel * dtype.itemsize <= len(content):
            raise ValueError(f"storage {key} is shorter than declared")
        return torch.frombuffer(content, dtype=dtype, count=numel) if numel else torch.empty(0, dtype=dtype)

    def _has(self, name: str) -> bool:
        return self._root + name in self._entries

    def _read(self, name: str, limit: int) -> bytearray:
        """An uncompressed entry of at most `limit` bytes, checked against its CRC."""
        entry = self._entries[self._root + name]
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ValueError(f"{name} is compressed")
        if entry.file_size > limit:
            raise ValueError(f"{name} is too large")
        content = bytearray(entry.file_size)
        with self._file.open(entry) as file:
            # zipfile compares the CRC at the end of the entry, which the last read reaches.
            if cast("BufferedIOBase", file).readinto(content) != len(content) or file.read(1):
                raise ValueError(f"{name} is truncated")
        return content


def _is_root_pickle(name: str) -> bool:
    return name.count("/") == 1 and name.endswith("/data.pkl")
